"""Our reading is never laxer than that of C2PA's own tool: the same files through its bare reader, by plain settings.

Files of other makers are not ours to hand on. Whoever has a folder of them (github.com/c2pa-org/public-testfiles) names
it in FACSIMILE_C2PA_FILES.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import c2pa
import pytest

from provenance.keys import Trust
from provenance.signing import read_manifest

FOLDER = Path(__file__).resolve().parent / "assets" / "c2pa"
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text())
TRUST = Trust(**EXPECTED["trust"])
EKUS = "1.3.6.1.5.5.7.3.4\n1.3.6.1.4.1.62558.2.1"
MIMES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".mp4": "video/mp4",
}
OURS = {"Trusted": "valid", "Valid": "untrusted", "Invalid": "tampered", "none": "none"}
STRICTER = {
    "other_leaf.jpg"
}  # signed by a leaf of our own authority that we did not pin: the tool trusts it, we do not


def tool_state(data: bytes, mime: str, anchors: str) -> str:
    """What C2PA's reader says with these anchors and nothing fetched: Trusted, Valid, Invalid or none."""
    settings = {
        "trust": {"trust_anchors": anchors, "trust_config": EKUS},
        "verify": {"verify_trust": True, "remote_manifest_fetch": False, "ocsp_fetch": False},
    }
    try:
        with (
            c2pa.Context.from_dict(settings) as context,
            c2pa.Reader(mime, io.BytesIO(data), context=context) as reader,
        ):
            return str(json.loads(reader.json())["validation_state"])
    except c2pa.C2paError.ManifestNotFound:
        return "none"


@pytest.mark.parametrize("name", [row["file"] for row in EXPECTED["files"]])
def test_the_corpus_reads_as_the_tool_reads_it(name: str) -> None:
    data, mime = (FOLDER / name).read_bytes(), MIMES[Path(name).suffix]
    said = tool_state(data, mime, TRUST.own_anchors + TRUST.listed_anchors)
    ours = read_manifest(data, mime, TRUST).state
    if name in STRICTER:
        assert (said, ours) == ("Trusted", "untrusted")
    else:
        assert ours == OURS[said]


def test_files_of_other_makers_read_as_the_tool_reads_them() -> None:
    folder = os.environ.get("FACSIMILE_C2PA_FILES")
    if not folder:
        pytest.skip("FACSIMILE_C2PA_FILES names no folder of other makers' signed files")
    paths = [path for path in sorted(Path(folder).rglob("*")) if path.suffix.lower() in MIMES]
    assert paths, f"{folder} holds no JPEG, PNG, WebP or MP4"
    read = dict[str, tuple[str, str]]()
    for path in paths:
        data, mime = path.read_bytes(), MIMES[path.suffix.lower()]
        try:
            said = OURS[tool_state(data, mime, "")]
        except c2pa.C2paError:
            continue  # what the tool itself cannot read
        read[path.name] = (said, read_manifest(data, mime, Trust()).state)
    assert {name: pair for name, pair in read.items() if pair[0] != pair[1]} == {}
