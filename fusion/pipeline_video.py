"""The pipeline of videos: look at every frame, consent, swap, mark, encode, sign, record, release.

A video is read twice. The first time, every frame is looked at and nothing is made: a face that shows up late is
asked for like one that was there from the start, and one without ground stops the job before a pixel is altered. Only
then frames are made, one by one. Both times the same private copy is read, so that nobody can exchange it in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusion.evidence import Input, VideoInput
from fusion.face import Face, UInt8Array
from fusion.files import copy_into, nameless_files, open_file
from fusion.formats import damaged
from fusion.pipeline import Asked, question_of, record_acceptance
from fusion.request import FuseRequest, only_face, pair_up
from fusion.seal import Sealed
from fusion.seal_video import Shape, VideoRelease, seal_video
from fusion.stopwatch import Stopwatch
from fusion.track import Person, Tracker, Tracks
from fusion.video import Frame, Video, VideoLimits
from provenance import consent
from provenance.consent import Decision
from provenance.errors import ConsentError, FaceError, MediaError
from provenance.home import Home
from provenance.records import MAX_FACES

if TYPE_CHECKING:
    from fusion.clip import ClipPainter
    from fusion.swap import Perception

FUSE_LIMITS = VideoLimits(max_duration_s=1800.0, max_frames=60_000, child_cpu_s=3600)
"""What a video that is altered may cost: half an hour; looking at one frame takes as long as decoding fifty."""


@dataclass(frozen=True, eq=False)
class PreparedVideo(Asked):
    """A fusion of a video, with its people and where they are; its pairs name people."""

    target: VideoInput
    people: tuple[Person, ...]
    video: Video
    tracks: Tracks
    num_shots: int
    size: tuple[int, int]


def fuse_video(
    request: FuseRequest,
    target: Path,
    home: Home,
    perception: Perception,
    output: Path,
    watch: Stopwatch | None = None,
) -> Sealed:
    """Fuse, seal, record and write one video to `output`, an .mp4; `request.target` is not looked at.

    ConsentError (logged) when any face of any frame is not covered, at the start or at release; FaceError, MediaError,
    SignatureError, StoreError, UsageError. Nothing is written then.
    """
    watch, release = watch or Stopwatch(), VideoRelease(output)
    with prepare_video(request, target, home, perception, watch) as prepared:
        with (
            _telling_where(prepared, home),
            watch.stage("consent"),
            consent.accept(prepared.question, home) as (decision, conn),
        ):
            accepted = record_acceptance(decision, home, conn)
        return complete_video(prepared, decision, accepted.index, home, perception, release, watch)


@contextmanager
def prepare_video(
    request: FuseRequest,
    target: Path,
    home: Home,
    perception: Perception,
    watch: Stopwatch,
    limits: VideoLimits = FUSE_LIMITS,
) -> Iterator[PreparedVideo]:
    """Copy the video, look at every frame, and put the question; decides and records nothing."""
    from fusion.swap import find_preset, require_engine
    from fusion.video_codec import check_sound

    engine = request.engine or find_preset(request.preset).engine
    require_engine(engine)
    with nameless_files(home.path, 2) as (copy, shown), nameless_files(home.path, 1) as (seen,):
        with watch.stage("read"):
            with open_file(target, limits.max_bytes) as original:
                copy_into(copy, original)
            sources = tuple(Input.read(data, home) for data in request.sources)
        with watch.stage("perceive"):
            source_faces = tuple(only_face(perception.analyse(source.rgb)) for source in sources)
        with closing(Video(shown, limits)) as video:
            check_sound(copy)
            tracker = Tracker(perception.analyse, perception.locate, perception.embed, Tracks(seen))
            first = _look(video, tracker, limits, watch)
            read = VideoInput.read(copy, first, home)
            people = tuple(tracker.people(_same_person()))
            pairs = pair_up(request, len(sources), _faces_of(people))
            given = [(source_faces[i], sources[i]) for i in sorted({source for source, _ in pairs})]
            asked = [replace(one.face, embedding=one.embedding) for one in people]
            yield PreparedVideo(
                request=request,
                engine=engine,
                question=question_of(request, home, perception, "video", given, (asked, read)),
                target=read,
                sources=sources,
                source_faces=source_faces,
                people=people,
                pairs=tuple(pairs),
                video=video,
                tracks=tracker.tracks,
                num_shots=tracker.num_shots,
                size=(first.shape[0] // 2 * 2, first.shape[1] // 2 * 2),
            )


@contextmanager
def _telling_where(prepared: PreparedVideo, home: Home) -> Iterator[None]:
    """A refusal with the people it is for, and when each is first seen: in a long video they must be found."""
    try:
        yield
    except ConsentError as error:
        with home.database.read() as conn:
            faces = consent.decide(prepared.question, home, conn).faces
        first = len(faces) - len(prepared.people)
        seen = [
            f"person {k} (first seen at {prepared.tracks.times_s[person.chains[0].first]:.2f} s)"
            for k, person in enumerate(prepared.people)
            if not faces[first + k].allowed
        ]
        told = f"{error.cause} Not covered in the video: {', '.join(seen)}." if seen else error.cause
        raise ConsentError(error.code, told, error.next_step, error.rules) from error


def _look(video: Video, tracker: Tracker, limits: VideoLimits, watch: Stopwatch) -> UInt8Array:
    """Every frame past the tracker; the first one, uint8 [H, W, 3]."""
    _require_whole(video)
    first: UInt8Array | None = None
    for frame in _decoded(video, watch):
        first = frame.rgb if first is None else first
        if frame.rgb.shape != first.shape:
            raise damaged("its frames change their size")
        if len(tracker.tracks) >= limits.max_frames:
            raise MediaError(
                "media.too_long",
                f"The video has more than {limits.max_frames} frames.",
                "Cut out the part that matters and retry.",
            )
        with watch.stage("perceive"):
            tracker.look(frame.rgb, frame.time_s)
    _require_whole(video)
    assert first is not None  # a video of no frame has raised
    return first


def _decoded(video: Video, watch: Stopwatch) -> Iterator[Frame]:
    """All frames; the time that is waited for the decoding process is its stage's."""
    frames = video.frames()
    while True:
        with watch.stage("decode"):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


def _require_whole(video: Video) -> None:
    """MediaError `media.truncated` for a video with a broken tail or damaged pieces: it can be checked, not swapped."""
    if not video.is_whole:
        raise MediaError(
            "media.truncated",
            "The video is cut short or damaged: who is on the frames that cannot be decoded, nobody can say.",
            "Fetch the original file again, or cut out the part that is whole.",
        )


def _same_person() -> float:
    from fusion.identity import MATCH_THRESHOLD

    return MATCH_THRESHOLD


def _faces_of(people: tuple[Person, ...]) -> list[Face]:
    """Each person where they are seen largest; FaceError when there is none, or too many to ask for."""
    if not people:
        raise FaceError(
            "target.no_face",
            "No face was found in any frame of the target.",
            "Use a video that shows a face of 40 px or more.",
        )
    if len(people) > MAX_FACES // 2:
        raise FaceError(
            "target.too_many_faces",
            f"The video shows {len(people)} people, and consent can be asked for {MAX_FACES // 2} at once.",
            "Cut it into parts and retry.",
        )
    return [person.face for person in people]


def complete_video(
    prepared: PreparedVideo,
    decision: Decision,
    accepted_index: int,
    home: Home,
    perception: Perception,
    release: VideoRelease,
    watch: Stopwatch,
) -> Sealed:
    """Make what was decided, frame by frame: swap, mark, encode; then sign, record, release."""
    from fusion.clip import ClipPainter

    request = prepared.request
    chains = {
        chain.number: (prepared.sources[i].rgb, prepared.source_faces[i])
        for i, k in prepared.pairs
        for chain in prepared.people[k].chains
    }
    painter = ClipPainter(
        chains, prepared.engine, preset=request.preset, detail=request.detail, eyes=request.eyes
    )
    job = prepared.job(decision, accepted_index, perception)

    def tell() -> dict[str, Any]:
        return {
            **prepared.details(decision),
            "video": {
                "num_frames": len(prepared.tracks),
                "num_altered": painter.num_altered,
                "duration_s": round(prepared.video.info.duration_s, 3),
                "num_shots": prepared.num_shots,
                "num_people": len(prepared.people),
                "has_sound": prepared.video.info.has_sound,
            },
        }

    height, width = prepared.size
    sound = prepared.target.data if prepared.video.info.has_sound else None
    shape = Shape(width, height, len(prepared.tracks), sound)
    return seal_video(_painted(prepared, painter, watch), shape, job, home, release, watch, tell)


def _painted(
    prepared: PreparedVideo, painter: ClipPainter, watch: Stopwatch
) -> Iterator[tuple[UInt8Array, float]]:
    """The frames again, altered, with their times; a last odd row or column is cut off, for 4:2:0 has none."""
    number, (height, width) = 0, prepared.size
    for number, frame in enumerate(_decoded(prepared.video, watch), 1):
        with watch.stage("swap"):
            rgb = painter.paint(frame.rgb, prepared.tracks.steadied(number - 1))
        yield np.ascontiguousarray(rgb[:height, :width]), frame.time_s
    if number != len(prepared.tracks):
        raise damaged("its frames differ from one reading to the next")
