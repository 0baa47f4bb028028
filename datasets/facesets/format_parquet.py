"""Parquet with the pictures in it, a file a shard (pyarrow); knows no picture's content.

Columns: `image` {bytes, path} as Hugging Face's `Image` feature has it, the fields of the record, nested ones as
lists and structs; masks as their run lengths.
"""

from __future__ import annotations

import io
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet

from facesets.formats import Files, SetView
from facesets.record import MASKS, SampleRecord

_POINT: Final = pa.list_(pa.float32())
_ORIGIN: Final = pa.struct(
    [("identity", pa.string()), ("sample_id", pa.string()), ("content_sha256", pa.string())]
)
SCHEMA: Final = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        *((name, pa.string()) for name in (
            "sample_id", "kind", "split", "shard", "file", "file_sha256", "content_sha256", "identity",
            "labelled_by", "asset_id", "manifest_sha256", "basis", "licence",
        )),
        *((name, pa.int64()) for name in ("width", "height", "seed", "ledger_index")),
        ("source", _ORIGIN),
        ("target", _ORIGIN),
        ("box_xyxy", pa.list_(pa.float32())),
        ("points_px", pa.list_(_POINT)),
        ("landmarks_px", pa.list_(_POINT)),
        ("pose", pa.struct([("yaw", pa.float32()), ("pitch", pa.float32()), ("roll", pa.float32())])),
        ("masks", pa.struct([(name, pa.list_(pa.int32())) for name in MASKS])),
        ("catchlights", pa.list_(pa.struct(
            [("eye", pa.string()), ("place_px", _POINT), ("strength", pa.float32())]
        ))),
        ("generator", pa.struct(
            [("name", pa.string()), ("version", pa.string()), ("models", pa.map_(pa.string(), pa.string()))]
        )),
        ("parameters", pa.map_(pa.string(), pa.string())),
        ("compression", pa.list_(pa.string())),
    ]
)  # fmt: skip


def write(view: SetView) -> Files:
    """One file a shard."""
    for name, records in view.by_shard():
        table = pa.Table.from_pylist([_row(record, view.read(record.file)) for record in records], SCHEMA)
        out = io.BytesIO()
        pa.parquet.write_table(table, out, compression="zstd")
        yield f"parquet/{name}.parquet", out.getvalue()


def _row(record: SampleRecord, data: bytes) -> dict[str, Any]:
    row = record.as_dict()
    row["image"] = {"bytes": data, "path": record.file}
    row["masks"] = {name: record.masks.get(name) for name in MASKS}
    row["generator"]["models"] = sorted(record.generator.models.items())
    row["parameters"] = [(key, str(value)) for key, value in record.parameters.items()]
    return row
