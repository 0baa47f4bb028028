"""`sample`, `fuse` and `demo`: everything that makes a picture; each goes through the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.console import Json, emit, frame_progress, report_errors, say, table
from server.deps import open_home

if TYPE_CHECKING:
    from fusion.request import FuseRequest
    from fusion.seal import Sealed
    from provenance.home import Home

Out = Annotated[Path, typer.Option("--out", "-o", help="Where to write.")]
Label = Annotated[bool, typer.Option("--label", help="Draw a visible label: AI生成 / AI GENERATED.")]


def add_to(app: typer.Typer) -> None:
    app.command("demo")(demo)
    app.command("sample")(sample)
    app.command("fuse")(fuse)


@report_errors
def demo(
    out: Annotated[Path, typer.Option(help="Folder to make it in.")] = Path("demo"),
    json_output: Json = False,
) -> None:
    """Make two people who don't exist, fuse them, check five files, draw index.html."""
    from server.demo import run

    shown = run(out, (lambda line: None) if json_output else say)
    if json_output:
        emit({"page": str(out / "index.html"), "files": [item.report.as_dict() for item in shown]})
        return
    table(
        ("file", "what it is", "verdict"),
        [(item.path.name, item.title, item.report.verdict.value) for item in shown],
    )
    say(f"Open {out / 'index.html'} to see the pictures and the evidence.")


@report_errors
def sample(
    out: Out,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=10_000, help="How many people.")] = 1,
    seed: Annotated[int | None, typer.Option(min=0, help="Same seed, same people; default: random.")] = None,
    size: Annotated[int, typer.Option(help="Side in pixels: 256 or 512.")] = 512,
    label: Label = False,
    json_output: Json = False,
) -> None:
    """Draw portraits of people who don't exist, sealed as wholly synthetic."""
    from fusion.pipeline import sample as sample_people
    from fusion.request import SampleRequest

    with open_home() as home:
        made = sample_people(SampleRequest(count, seed, size, label), home, out)
    if json_output:
        emit({"files": [sealed.as_dict() for sealed in made]})
        return
    for sealed in made:
        say(f"{sealed.path}  mark {sealed.asset_id}  leaf {sealed.receipt.index}")


@report_errors
def fuse(
    source: Annotated[list[Path], typer.Option(help="Picture(s) that give the identity.")],
    target: Annotated[Path, typer.Option(help="Picture or MP4 video to alter.")],
    out: Out,
    purpose: Annotated[str, typer.Option(help="What it is made for; grants must list it.")],
    use: Annotated[str, typer.Option(help="internal, publish or dataset.")] = "internal",
    grant: Annotated[list[str] | None, typer.Option(help="Grant id(s) of the people involved.")] = None,
    preset: Annotated[str, typer.Option(help="mobile, live or film.")] = "film",
    engine: Annotated[str | None, typer.Option(help="warp, hybrid or style; default: the preset's.")] = None,
    no_detail: Annotated[
        bool, typer.Option("--no-detail", help="Leave the skin's fine bands as the engine paints them.")
    ] = False,
    no_eyes: Annotated[
        bool, typer.Option("--no-eyes", help="Leave the eyes' light as the engine paints it.")
    ] = False,
    face: Annotated[str, typer.Option(help="largest, all, or a face's number from the left.")] = "largest",
    map_: Annotated[
        list[str] | None, typer.Option("--map", help="SOURCE=FACE, both counted from 0, faces from the left.")
    ] = None,
    label: Label = False,
    json_output: Json = False,
) -> None:
    """Put a source's identity onto a target's face: consent first, sealed, recorded, then released."""
    from fusion.files import check_writable
    from fusion.media import LIMITS, read_file
    from fusion.request import FuseRequest

    check_writable(out, [*source, target])
    is_film = _is_video(target)
    request = FuseRequest(
        sources=tuple(read_file(path, LIMITS.max_bytes) for path in source),
        target=b"" if is_film else read_file(target, LIMITS.max_bytes),
        purpose=purpose,
        use=use,
        grant_ids=tuple(grant or ()),
        preset=preset,
        engine=engine,
        detail=not no_detail,
        eyes=not no_eyes,
        face=face,
        mapping=tuple(map_ or ()),
        label=label,
    )
    with open_home() as home:
        sealed = _fuse_video(request, target, home, out) if is_film else _fuse_picture(request, home, out)
    if json_output:
        emit(sealed.as_dict())
        return
    say(
        f"{sealed.path}: mark {sealed.asset_id}, leaf {sealed.receipt.index} of the ledger, signed and recorded."
    )


def _is_video(path: Path) -> bool:
    from fusion.files import open_file
    from fusion.video import VIDEO_LIMITS, is_video

    with open_file(path, VIDEO_LIMITS.max_bytes) as file:
        return is_video(file.read(16))


def _fuse_picture(request: FuseRequest, home: Home, out: Path) -> Sealed:
    from fusion.pipeline import fuse as fuse_picture
    from fusion.swap import load_perception

    return fuse_picture(request, home, load_perception("cpu"), out)


def _fuse_video(request: FuseRequest, target: Path, home: Home, out: Path) -> Sealed:
    """With a line on stderr for each of the two times that the frames are gone through."""
    from fusion.pipeline_video import fuse_video
    from fusion.seal_video import VideoRelease
    from fusion.stopwatch import Stopwatch
    from fusion.swap import load_perception

    VideoRelease(out)
    with frame_progress() as enter:
        return fuse_video(request, target, home, load_perception("cpu"), out, Stopwatch(enter))
