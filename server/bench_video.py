"""Measures the fusion of a drawn, moving 720p clip of nobodies by each preset; knows no command line.

The head moves and turns as a whole, in the picture's plane: no lips and no lids move, so jitter and drift say what
tracking and engine add to a face that only moves.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fusion.align import apply_matrix, invert_matrix
from fusion.face import FloatArray, UInt8Array
from fusion.media import read_picture
from fusion.pipeline import record_acceptance, sample
from fusion.pipeline_video import complete_video, prepare_video
from fusion.request import FuseRequest, SampleRequest
from fusion.seal_video import VideoRelease
from fusion.stopwatch import Stopwatch
from fusion.swap import Perception, load_perception
from fusion.tables import Row
from fusion.track import Tracks
from fusion.video import open_video
from fusion.video_codec import VideoWriter
from provenance import consent
from provenance.declarations import declare_synthetic
from provenance.hashes import video_content_sha256
from provenance.home import Home

SIZE = (1280, 720)
FRAMES_PER_S = 25.0
EACH_FRAME = ("decode", "perceive", "swap", "mark", "encode")
"""Stages that every frame goes through; the others run once for the file."""


@dataclass
class _Clock(Stopwatch):
    """A stopwatch that also notes when each frame was asked for."""

    asked_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self._note)

    def _note(self, stage: str) -> None:
        if stage == "decode":
            self.asked_s.append(time.perf_counter())

    def frame_ms(self, num_frames: int) -> FloatArray:
        """Both times a frame was gone through, together, float32 [N]."""
        first, second = np.split(np.array(self.asked_s), 2)
        return np.asarray(1e3 * (np.diff(first) + np.diff(second))[:num_frames], np.float32)


def measure_video(
    folder: Path, presets: Sequence[str], num_frames: int, size: tuple[int, int] = SIZE, seed: int = 3
) -> list[dict[str, Any]]:
    """Fuse a nobody into the clip by each preset, in a new home in `folder`; rows of bench.json."""
    perception = load_perception("cpu")
    with Home.create(folder / "home", "Bench") as home:
        people = [
            one.path.read_bytes() for one in sample(SampleRequest(2, seed=seed), home, folder / "people")
        ]
        target, moves = film_portrait(read_picture(people[0]).rgb, folder / "clip.mp4", num_frames, size)
        with target.open("rb") as file:
            declare_synthetic(home, [video_content_sha256(file)], "drawn by the bench: nobody")
        rows: list[Row] = []
        for preset in presets:
            request = FuseRequest((people[1],), b"", "bench", preset=preset)
            case = f"{preset}_{size[1]}p_cpu"
            rows += _measure(case, request, target, moves, home, perception, folder / f"{preset}.mp4")
    return [asdict(row) for row in rows]


def film_portrait(
    rgb: UInt8Array, path: Path, num_frames: int, size: tuple[int, int]
) -> tuple[Path, list[FloatArray]]:
    """An H.264 clip of a portrait uint8 [512, 512, 3] that moves, and frame_from_image [2, 3] of each frame.

    Sensor noise of 1.5 grey levels; the whole head is in each frame.
    """
    width, height = size
    moves = []
    with VideoWriter(path, width, height, crf=20) as out:
        for number in range(num_frames):
            along = number / FRAMES_PER_S * 2 * np.pi
            move = cv2.getRotationMatrix2D(
                (256, 256), 6 * np.sin(along / 2), height / 512 * (0.9 + 0.03 * np.sin(along / 3))
            )
            sway = np.array([0.06 * np.sin(along / 2), 0.02 * np.cos(along)]) * height
            move[:, 2] = move[:, 2] + np.array([width, height]) / 2 - 256 + sway
            frame = cv2.warpAffine(rgb, move, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
            noise = np.random.default_rng(number).normal(0, 1.5, frame.shape)
            out.write(np.asarray((frame + noise).clip(0, 255), np.uint8), number / FRAMES_PER_S)
            moves.append(np.asarray(move, np.float32))
    return path, moves


def _measure(
    case: str,
    request: FuseRequest,
    target: Path,
    moves: Sequence[FloatArray],
    home: Home,
    perception: Perception,
    out: Path,
) -> list[Row]:
    watch, begun = _Clock(), time.perf_counter()
    with prepare_video(request, target, home, perception, watch) as prepared:
        with watch.stage("consent"), consent.accept(prepared.question, home) as (decision, conn):
            accepted = record_acceptance(decision, home, conn)
        complete_video(prepared, decision, accepted.index, home, perception, VideoRelease(out), watch)
        spent_s, count = time.perf_counter() - begun, len(prepared.tracks)
        steady, raw = (jitter_px(points_of(prepared.tracks, kept), moves) for kept in (True, False))
    rows = [
        Row(case, "fps", count / spent_s, "frames/s", count, None),
        *_stage_rows(case, watch, count),
        Row(case, "p95_ms", float(np.quantile(watch.frame_ms(count), 0.95)), "ms", count, None),
        Row(case, "peak_mb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MB", 1, None),
        Row(case, "jitter_px", steady, "px", count, None),
        Row(case, "jitter_unsteadied_px", raw, "px", count, None),
        Row(case, "id_drift", id_drift(out, perception), "cosine", count, None),
        Row(case, "id_drift_target", id_drift(target, perception), "cosine", count, None),
    ]
    return rows


def _stage_rows(case: str, watch: Stopwatch, count: int) -> list[Row]:
    """ms_ by the wall, cpu_ms_ by this process (the decoding child is not in it): a frame's share, or the file's."""
    rows = []
    for name, taken in (("ms", watch.timings_ms), ("cpu_ms", watch.cpu_ms)):
        for stage, spent in taken.items():
            of = count if stage in EACH_FRAME else 1
            rows.append(Row(case, f"{name}_{stage}", spent / of, "ms", of, None))
    return rows


def points_of(tracks: Tracks, steadied: bool) -> FloatArray:
    """Landmarks of the only face of each frame, as the engine gets them or as they were found, float32 [N, 478, 2]."""
    read = tracks.steadied if steadied else tracks.read
    return np.stack([read(number)[0].landmarks_px for number in range(len(tracks))])


def jitter_px(points: FloatArray, moves: Sequence[FloatArray]) -> float:
    """Root mean square step, from frame to frame, of points [N, 478, 2] px against the head's known motion.

    `moves` are frame_from_image [2, 3]: each frame's points are put back into the picture, and their steps there are
    measured in px of the frame.
    """
    still = np.stack(
        [apply_matrix(invert_matrix(m.astype(np.float64)), p) for m, p in zip(moves, points, strict=True)]
    )
    scale = float(np.mean([np.sqrt(abs(np.linalg.det(move[:, :2]))) for move in moves]))
    steps = np.linalg.norm(np.diff(still, axis=0), axis=2) * scale
    return float(np.sqrt((steps**2).mean()))


def id_drift(path: Path, perception: Perception) -> float:
    """1 minus the mean cosine of a face's embeddings, of each frame of a video, to their own mean."""
    found = []
    with open_video(path) as video:
        for frame in video.frames():
            faces = perception.analyse(frame.rgb)
            found += [face.embedding for face in faces[:1] if face.embedding is not None]
    embeddings = np.stack(found)
    mean = embeddings.mean(0)
    return float(1 - (embeddings @ (mean / np.linalg.norm(mean))).mean())
