"""WebDataset: a tar a shard, the files of a sample next to each other; knows no picture's content.

`{sample_id}.{png|jpg|webp}`, `{sample_id}.json` (the record) and, where something was altered, `{sample_id}.mask.png`.
Written with the standard library, so that equal sets give equal bytes.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator

from facesets.formats import Files, SetView
from facesets.record import SampleRecord


def write(view: SetView) -> Files:
    """One tar a shard: `webdataset/{split}-{shard}.tar`."""
    for name, records in view.by_shard():
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for record in records:
                for member, data in _members(view, record):
                    entry = tarfile.TarInfo(member)
                    entry.size, entry.mode = len(data), 0o644
                    tar.addfile(entry, io.BytesIO(data))
        yield f"webdataset/{name}.tar", out.getvalue()


def _members(view: SetView, record: SampleRecord) -> Iterator[tuple[str, bytes]]:
    suffix = record.file.rpartition(".")[2]
    yield f"{record.sample_id}.{suffix}", view.read(record.file)
    if record.mask_file is not None:
        yield f"{record.sample_id}.mask.png", view.read(record.mask_file)
    told = json.dumps(record.as_dict(), ensure_ascii=False, separators=(",", ":"))
    yield f"{record.sample_id}.json", told.encode()
