"""Croissant 1.0 metadata (JSON-LD of MLCommons): what files a set has and what its records say; opens no picture.

`croissant.json` names records.jsonl with its hash and the plain fields of its lines; nested ones (points, masks, pose)
are in the same lines. Pictures are named in the field `file`, each with its own hash.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from facesets.card import LIMITS, WARNING
from facesets.formats import Files, SetView
from facesets.record import write_lines

VERSION: Final = "http://mlcommons.org/croissant/1.0"
RECORDS: Final = "records.jsonl"
_TEXT, _INTEGER = "sc:Text", "sc:Integer"
_FIELDS: Final = (
    ("sample_id", _TEXT, "Unique in the set."),
    ("kind", _TEXT, "sampled: drawn; fused; self_blended."),
    ("split", _TEXT, "train, val or test; nobody is in two."),
    ("file", _TEXT, "Picture, below the set's folder."),
    ("file_sha256", _TEXT, "Of the picture's file."),
    ("identity", _TEXT, "Whom the picture shows; nobody who exists."),
    ("width", _INTEGER, "Pixels."),
    ("height", _INTEGER, "Pixels."),
    ("labelled_by", _TEXT, "generator: known from the drawing; network: found in the picture."),
    ("asset_id", _TEXT, "The mark in the pixels."),
    ("ledger_index", _INTEGER, "Place of the proof in the maker's ledger."),
    ("licence", _TEXT, "Of picture and labels."),
)
# https://docs.mlcommons.org/croissant/docs/croissant-spec.html, appendix 1
_CONTEXT: Final[dict[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def write(view: SetView) -> Files:
    """`croissant.json` at the top of the set, as tools look for it."""
    card = view.card
    told = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": VERSION,
        "name": card.name,
        "description": f"{card.description} {WARNING} {' '.join(LIMITS)}",
        "license": card.licence,
        "version": "1.0.0",
        "creator": {"@type": "sc:Organization", "name": f"facsimile {card.version}"},
        "url": "./README.md",
        "isLiveDataset": False,
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": RECORDS,
                "name": RECORDS,
                "contentUrl": RECORDS,
                "encodingFormat": "application/jsonlines",
                "sha256": hashlib.sha256(write_lines(view.records)).hexdigest(),
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "samples",
                "name": "samples",
                "description": "One record a picture; masks, points, pose and parameters stand in the same lines.",
                "key": {"@id": "samples/sample_id"},
                "field": [_field(*each) for each in _FIELDS],
            }
        ],
    }
    yield "croissant.json", (json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode()


def _field(name: str, kind: str, words: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"samples/{name}",
        "name": name,
        "description": words,
        "dataType": kind,
        "source": {"fileObject": {"@id": RECORDS}, "extract": {"column": name}},
    }
