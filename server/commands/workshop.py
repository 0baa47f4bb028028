"""`train`, `bench` and `models`: networks made, measured and brought along; nothing here makes a picture."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from server.console import Json, emit, report_errors, say, table
from server.settings import read_settings


class Network(StrEnum):
    """What can be trained."""

    DETECT = "detect"
    LANDMARK = "landmark"
    IDENTITY = "identity"
    SAMPLE = "sample"
    GENERATOR = "generator"
    DETECTOR = "detector"
    MARK = "mark"
    DETAIL = "detail"
    OCCLUSION = "occlusion"


def add_to(app: typer.Typer) -> None:
    app.command("train")(train)
    models = typer.Typer(no_args_is_help=True, help="Networks you bring along.", rich_markup_mode=None)
    models.command("list")(list_models)
    models.command("add")(add_model)
    app.add_typer(models, name="models")


@report_errors
def train(
    network: Annotated[Network, typer.Argument(help="Which network.")],
    data: Annotated[Path, typer.Option(help="Folder of pictures, labels and teachers; see the card.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoints, curves, weights.")] = Path(
        "runs"
    ),
    minutes: Annotated[float, typer.Option(min=0.1, help="Wall-clock budget, all slices together.")] = 60.0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="sample: 40 portraits, few components; shows that it runs.")
    ] = False,
    engine: Annotated[str, typer.Option(help="generator: hybrid or style.")] = "hybrid",
    pairs: Annotated[int, typer.Option(min=0, help="generator: training pairs made first, once.")] = 4096,
    device: Annotated[str, typer.Option(help="generator, detector and mark: cpu, or cuda:N.")] = "cpu",
    size: Annotated[str, typer.Option(help="detector: narrow, resnet18d, convnext.")] = "narrow",
    start: Annotated[
        Path | None,
        typer.Option(
            help="Begin with it, schedule anew. detector, identity: a checkpoint; generator: weights of hybrid."
        ),
    ] = None,
    pretrained: Annotated[
        Path | None, typer.Option(help="detector: your own backbone weights, for convnext.")
    ] = None,
    pretrained_sha256: Annotated[str, typer.Option(help="detector: the sha256 you expect of them.")] = "",
) -> None:
    """Train a network by its recipe; weights land in the run's folder with their sha256."""
    run = out / network.value
    if network is Network.DETECT:
        from fusion.train.detect import train as train_detect

        train_detect(data, run, minutes=minutes, threads=threads, resume=resume, report=say)
    elif network is Network.DETAIL:
        from fusion.train.detail import train as train_detail_branch

        train_detail_branch(data, run, minutes=minutes, threads=threads, resume=resume, report=say)
    elif network is Network.OCCLUSION:
        from fusion.train.occlusion import train as train_occlusion

        train_occlusion(data, run, minutes=minutes, threads=threads, resume=resume, report=say)
    elif network is Network.LANDMARK:
        from fusion.train.landmark import train as train_landmark

        train_landmark(data, run, minutes=minutes, threads=threads, resume=resume, report=say)
    elif network is Network.IDENTITY:
        from fusion.train.identity import train_identity
        from fusion.train.identity_material import IdentityRecipe
        from fusion.train.identity_people import write_people
        from fusion.weights import write_weights

        teacher = data.parent / "teachers" / "mobilefacenet_128d.safetensors"
        recipe = IdentityRecipe(minutes=minutes, threads=threads)
        if start is not None:
            recipe = IdentityRecipe.further(minutes, threads)
        net = train_identity(data, run, teacher, recipe=recipe, resume=resume, start=start)
        sha256 = write_weights(run / "identity.safetensors", net.state_dict())
        say(f"identity.safetensors sha256 {sha256}")
        people = write_people(data, run / "people.safetensors", net, sha256)
        say(f"people.safetensors sha256 {people}")
    elif network is Network.MARK:
        from fusion.train.mark import MarkRecipe, train_mark

        course = MarkRecipe(minutes=minutes, threads=threads, device=device)
        train_mark(data, run, course, resume=resume, report=say)
    elif network is Network.GENERATOR:
        from fusion.train.generator import train as train_generator
        from fusion.train.generator_terms import GeneratorRecipe

        chosen = GeneratorRecipe.of if start is None else GeneratorRecipe.further
        recipe_of_generator = chosen(engine, minutes=minutes, threads=threads, device=device)
        train_generator(data, run, recipe_of_generator, pairs=pairs, resume=resume, start=start, report=say)
    elif network is Network.DETECTOR:
        from detector.train import DetectorRecipe
        from detector.train import train as train_detector
        from server.commands.detector import fresh_mark

        train_detector(
            data,
            run,
            minutes=minutes,
            threads=threads,
            device=device,
            resume=resume,
            start=start,
            recipe=DetectorRecipe.of_size(size, device),
            pretrained=None if pretrained is None else (pretrained, pretrained_sha256),
            mark=fresh_mark(),
            report=say,
        )
    else:
        from facesets.train_sample import train as train_sample

        train_sample(data, run, minutes=minutes, threads=threads, resume=resume, report=say, quick=quick)


@report_errors
def list_models(json_output: Json = False) -> None:
    """List the networks that ship and those you added."""
    from detector.weights import DETECTOR
    from fusion.guests import list_guests
    from fusion.weights import REGISTRY

    rows = [
        {"name": spec.name, "origin": "ours", "licence": spec.licence, "sha256": spec.sha256}
        for spec in (*REGISTRY.values(), DETECTOR)
    ]
    for guest in list_guests(read_settings().home / "models"):
        rows += [
            {"name": guest.name, "origin": f"guest, {file}", "licence": guest.licence, "sha256": sha256}
            for file, sha256 in guest.files.items()
        ]
    if json_output:
        emit({"models": rows})
    else:
        table(("name", "origin", "licence", "sha256"), [tuple(row.values()) for row in rows])


@report_errors
def add_model(
    file: Annotated[Path, typer.Argument(help="An ONNX file, or a folder of them (an insightface pack).")],
    name: Annotated[str, typer.Option("--as", help="How you will call it.")],
    licence: Annotated[str, typer.Option(help="The licence you use it under.")],
    json_output: Json = False,
) -> None:
    """Bring along a model you already have; nothing is downloaded."""
    from fusion.guests import add_guest

    guest = add_guest(read_settings().home / "models", file, name, licence)
    if json_output:
        emit({"name": guest.name, "licence": guest.licence, "files": dict(guest.files)})
    else:
        say(f"Added {guest.name} ({guest.kind}, {len(guest.files)} file(s)) under {guest.licence}.")
