"""Misreport bundles: what a check saw, in one deterministic ZIP, for whoever is to find out why it was wrong.

    report.json       evidence and verdict, the file's name without its folder, no heat maps
    settings.json     what was asked, by whom (tool and model versions, hashes), never a key
    README.txt        what this is
    original/<sha256> the very bytes that were checked; only where the sender agreed to hand them over

`replay` runs the verdict table and, where the original is there, the detector again. Manifest, mark and ledger depend
on the keys of the home that checked; they are taken from the report. See docs/check.md.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from provenance.errors import InputError
from provenance.hashes import PERCEPTUAL_OTHER, sha256_hex

if TYPE_CHECKING:
    from detector.check import Report
    from detector.evidence import FaceScorer

SCHEMA = "facsimile-misreport/1"
MAX_BYTES = 128 << 20
_README = """This bundle was made by `facsimile check --bundle` because somebody doubts the verdict in report.json.
It holds no key, no ledger and no folder name. With original/, it holds the file itself: handle it as its sender asked.
"""


@dataclass(frozen=True)
class Replayed:
    """A verdict as recorded and as the table and the detector give it now."""

    recorded: str
    verdict: str
    recorded_band: str
    band: str
    detector_ran: bool
    same_versions: bool


def write_bundle(report: Report, original: bytes | None, remark: str = "") -> bytes:
    """The bundle of one file as a ZIP; the same input gives the same bytes. ValueError for another original."""
    if original is not None and sha256_hex(original) != report.file_sha256:
        raise ValueError("the original is not the file that was checked")
    told = report.as_dict() | {"file": PurePath(report.file).name}
    for face in told["evidence"]["detector"]["faces"]:
        face["heatmap"] = None
    settings = {
        "schema": SCHEMA,
        "remark": remark,
        "original": original is not None,
        "versions": report.versions,
    }
    parts = {
        "README.txt": _README.encode(),
        "report.json": _json(told),
        "settings.json": _json(settings),
    }
    if original is not None:
        parts[f"original/{report.file_sha256}"] = original
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(parts):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), parts[name])
    return out.getvalue()


def read_bundle(data: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes | None]:
    """Report, settings and original of a bundle; InputError for what is none. Nothing is unpacked to disk."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            if sum(each.file_size for each in archive.infolist()) > MAX_BYTES or len(names) > 16:
                raise ValueError("too large")
            report, settings = (json.loads(archive.read(name)) for name in ("report.json", "settings.json"))
            originals = [name for name in names if name.startswith("original/")]
            original = archive.read(originals[0]) if originals else None
        if settings["schema"] != SCHEMA or (original and sha256_hex(original) != report["file_sha256"]):
            raise ValueError("altered")
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, OSError, RuntimeError) as error:
        raise InputError(
            "bundle.unreadable", "This is no misreport bundle, or it was altered.", "Ask for it again."
        ) from error
    return report, settings, original


def replay(data: bytes, scorer: FaceScorer | None = None) -> Replayed:
    """Decide once more from a bundle; the detector runs only on a picture that the sender handed over."""
    from detector import gates
    from detector.check import RULES_VERSION, Eyes
    from detector.evidence import DetectorEvidence
    from detector.judge import judge_faces
    from detector.verdict import Evidence, decide
    from fusion.headers import jpeg_luma_table, read_header
    from fusion.media import read_picture
    from fusion.video import is_video

    report, settings, original = read_bundle(data)
    told = report["evidence"]
    found = DetectorEvidence(told["detector"]["band"], None)
    ran = original is not None and not is_video(original[:16])
    if original is not None and ran:
        rgb, eyes = read_picture(original).rgb, Eyes()
        whole = gates.judge_picture(rgb, jpeg_luma_table(read_header(original).pixel_stream))
        found, _ = judge_faces(rgb, eyes.faces(rgb), whole, scorer)
    manifest, mark, ledger = told["manifest"], told["mark"], told["ledger"]
    finding = decide(
        Evidence(
            manifest=manifest["state"],
            source_type=(manifest["source_type"] or "").rsplit("/", 1)[-1] or None,
            ours=bool(manifest["ours"]),
            signer=manifest["signer"],
            manifest_asset_id=manifest["asset_id"],
            mark_asset_id=mark["asset_id"] if mark["present"] else None,
            perceptual_distance=ledger["perceptual_distance"] if ledger["found_by"] == "mark" else None,
            other_from=ledger.get("other_from") or PERCEPTUAL_OTHER,
            band=found.band,
            band_reason=str(found.reason or ""),
        )
    )
    now = {"verdict_table": str(RULES_VERSION), "gates": gates.VERSION}
    return Replayed(
        recorded=report["verdict"],
        verdict=finding.verdict.value,
        recorded_band=told["detector"]["band"],
        band=found.band,
        detector_ran=ran,
        same_versions=all(settings["versions"].get(name) == value for name, value in now.items()),
    )


def keep_as_test(bundle: Path, folder: Path, name: str, expect: str, why: str) -> Path:
    """Put a bundle among the regression tests: the ZIP, and what the verdict ought to be, and why."""
    data = bundle.read_bytes()
    read_bundle(data)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.zip").write_bytes(data)
    (folder / f"{name}.json").write_bytes(_json({"expect": expect, "why": why}))
    return folder / f"{name}.zip"


def _json(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode()
