"""What a check's report says, in the words of one language, as plain records; knows neither HTML nor PDF."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from detector.statement import Statement

if TYPE_CHECKING:
    from detector.check import Report
    from detector.evidence import Consistency, FaceEvidence, VideoEvidence
    from server.language import Translator

TONES: Mapping[str, str] = {
    "declared_synthetic": "told", "synthetic_by_mark": "told", "provenance_verified": "proven",
    "tampered": "alarm", "conflict": "alarm", "mark_transplant": "alarm", "likely_manipulated": "alarm",
    "inconclusive": "open", "no_evidence": "open",
}  # fmt: skip
"""How a verdict is coloured; the words carry the meaning, the colour only repeats it."""
SIGNS: Mapping[str, str] = {"told": "i", "proven": "✓", "alarm": "!", "open": "?"}
LIMITS = ("authentic", "absence", "detector", "mark", "ledger")
MAX_FACES = 12
LEAST_CHANCE = 1e-30
MAX_DEPTH = 6

_NOTES = (
    ("turned upright", "upright"), ("laid on white", "white"), ("greyscale", "grey"), ("CMYK", "cmyk"),
    ("profile does not fit", "profile_unused"), ("profile is too large", "profile_unused"),
    ("converted from the profile", "profile"), ("16 bits", "bits"), ("after the end", "trailing"),
    ("too small to carry", "small"), ("too early", "cut"), ("damaged pieces", "damaged"), ("dynamic range", "hdr"),
)  # fmt: skip


@dataclass(frozen=True)
class Node:
    """One manifest or ingredient of the chain of declarations."""

    title: str
    lines: tuple[str, ...]
    parts: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Dot:
    """A sampled frame on the line of time: shares of its width and of its height from the top."""

    x: float
    y: float
    judged: bool
    marked: bool


@dataclass(frozen=True)
class Timeline:
    """Shots as fields (left and width, shares of the whole), sampled frames as dots; what to say of it."""

    shots: tuple[tuple[float, float], ...]
    dots: tuple[Dot, ...]
    alt: str
    legend: str


def short_name(report: Report) -> str:
    """The file's name without its folder."""
    return PurePath(report.file).name or report.file


def witnesses(report: Report, t: Translator) -> list[tuple[str, list[str]]]:
    """Label and sentences of each witness, in the order of the design."""
    return [
        (t("witness.manifest"), _manifest(report, t)),
        (t("witness.mark"), _mark(report, t)),
        (t("witness.ledger"), _ledger(report, t)),
        (t("witness.detector"), _detector(report, t)),
        (t("witness.consistency"), [steadiness(report.consistency, t)]),
        (t("witness.foreign"), _foreign(report, t)),
    ]


def conflicts(report: Report, t: Translator) -> list[str]:
    """Every contradiction as a sentence."""
    return [say(each, t) for each in report.conflicts]


def notes(remarks: Iterable[str], t: Translator) -> list[str]:
    """A medium's remarks as sentences; those that no catalogue has stay in English."""
    told = []
    for note in remarks:
        key = next((key for words, key in _NOTES if words in note), None)
        told.append(note if key is None or t.lang == "en" else t(f"note.{key}"))
    return [text[:1].upper() + text[1:] + ("" if text.endswith((".", "。")) else ".") for text in told]


def say(statement: str, t: Translator) -> str:
    """A statement of the detector's floor in this language; a plain str as it is."""
    if not isinstance(statement, Statement):
        return statement
    values = {name: _value(name, value, t) for name, value in statement.values.items()}
    return t.maybe(statement.code, str(statement), **values)


def _value(name: str, value: object, t: Translator) -> object:
    if name in ("band", "copies"):
        return ", ".join(band_name(each, t) for each in str(value).split(", "))
    if value == "no mark":
        return t("conflict.no_mark")
    return t("conflict.no_source") if value == "no source type" else value


def band_name(band: str, t: Translator) -> str:
    """A band in one or two words."""
    return t.maybe(f"band.name.{'none' if band == 'no' else band}", band)


def variants(names: Iterable[str], t: Translator) -> str:
    """Names of re-delivered copies, in words."""
    return ", ".join(t.maybe(f"report.variant.{name.replace('.', '')}", name) for name in names)


def steadiness(found: Consistency | None, t: Translator) -> str:
    """Whether the result held in re-delivered copies."""
    if found is None:
        return t("report.steady.untested")
    copies = variants(found.variants, t)
    if found.stable:
        return t("report.steady.yes", count=len(found.variants), copies=copies)
    return t("report.steady.no", copies=copies)


def face_lines(face: FaceEvidence, t: Translator) -> list[str]:
    """What is said of one face beside its picture."""
    left, top, right, bottom = (round(value) for value in face.box_xyxy)
    lines = [t(f"band.{face.band}")]
    if face.reason is not None:
        lines.append(say(face.reason, t))
    lines.append(t("report.face.place", width=right - left, height=bottom - top, left=left, top=top))
    if face.logit is not None:
        reliability = f"{face.reliability:.2f}" if face.reliability is not None else "–"
        lines.append(t("report.face.logit", logit=f"{face.logit:+.2f}", reliability=reliability))
        lines.append(t("report.heat.shown") if face.heatmap is not None else t("report.heat.hidden"))
    if face.variants:
        read = [f"{variants([name], t)}: {band_name(band, t)}" for name, band in face.variants.items()]
        lines.append(t("report.face.copies", copies="; ".join(read)))
    return lines


def video_lines(video: VideoEvidence, t: Translator) -> list[str]:
    """What kind of video it is and how much of it was seen."""
    facts = t(
        "report.video.facts",
        duration=t.number(video.duration_s, "0.0"),
        frames=video.num_frames,
        rate=t.number(video.frame_rate, "0.0"),
        codec=video.codec,
    )
    count = len(video.frames)
    lines = [facts, t("report.video.sampled", count=count)]
    if any(each.marked for each in video.frames):
        lines.append(t("report.video.marked", marked=sum(each.marked for each in video.frames), count=count))
    lines += [t("report.video.varies")] if video.variable_rate else []
    return lines + ([] if video.has_sound else [t("report.video.silent")])


def followed(video: VideoEvidence, t: Translator) -> list[str]:
    """How many faces of a video the detector judged, each followed through its shot; nothing where none."""
    judged = sum(track.band != "not_applicable" for track in video.tracks)
    return [t("detector.followed", count=judged)] if judged else []


def shot_rows(video: VideoEvidence, t: Translator) -> list[tuple[str, ...]]:
    """One row per shot: number, time, sampled frames, followed faces, traces."""
    return [
        (
            str(number + 1),
            f"{t.number(shot.start_s, '0.0')}–{t.number(shot.end_s, '0.0')} s",
            str(shot.num_frames),
            str(sum(track.shot == number for track in video.tracks)),
            band_name(shot.band, t),
        )
        for number, shot in enumerate(video.shots)
    ]


def shot_columns(t: Translator) -> tuple[str, ...]:
    """The heads of `shot_rows`."""
    return (
        t("report.video.shot"),
        t("report.video.time"),
        t("report.video.sampled_frames"),
        t("report.video.faces"),
        t("report.video.band"),
    )


def timeline(video: VideoEvidence, t: Translator) -> Timeline:
    """A video from its first to its last moment; a shot lasts until the next one begins."""
    length = max(video.duration_s, 1e-3)
    starts = [min(shot.start_s / length, 1.0) for shot in video.shots]
    scored = any(each.logit is not None for each in video.frames)
    return Timeline(
        tuple((left, end - left) for left, end in itertools.pairwise([*starts, 1.0])),
        tuple(
            Dot(min(each.time_s / length, 1.0), _height(each.logit), each.logit is not None, each.marked)
            for each in video.frames
        ),
        t("report.video.alt", shots=len(video.shots), duration=t.number(video.duration_s, "0.0")),
        t("report.video.legend" if scored else "report.video.legend_plain"),
    )


def _height(logit: float | None) -> float:
    """Where a frame's dot lies, 0 at the top: logits of -6 to 6 fill the field, what has none lies at the bottom."""
    return 0.95 if logit is None else 0.5 - max(min(logit, 6.0), -6.0) / 12 * 0.85


def identity_rows(report: Report, t: Translator) -> list[tuple[str, str]]:
    """Which file this is: size, hashes."""
    medium = report.medium
    size = t(
        "report.size",
        width=medium.width,
        height=medium.height,
        format=medium.format.upper(),
        bytes=f"{t.number(medium.num_bytes)} B",
    )
    return [
        (t("report.file"), f"{short_name(report)}: {size}"),
        (t("report.hash.content"), report.content_sha256),
        (t("report.hash.file"), report.file_sha256),
    ]


def bits_line(report: Report, t: Translator) -> str:
    """The mark as a count of agreeing bits and the chance of a false alarm."""
    mark = report.mark
    chance = _chance(mark.p_false, t)
    if mark.bit_accuracy is None:
        return t("report.bits.absent", p_false=chance)
    return t("report.bits.agree", agree=round(mark.bit_accuracy * 128), p_false=chance)


def receipt_line(report: Report, t: Translator) -> str:
    """The ledger's receipt in one line."""
    ledger = report.ledger
    if not ledger.found:
        return t("ledger.none")
    return t(
        "report.receipt.line",
        index=ledger.index,
        by=t(f"report.receipt.by.{ledger.found_by}"),
        proof=t("report.receipt.proven" if ledger.inclusion_verified else "report.receipt.unproven"),
    )


def limits(t: Translator) -> list[str]:
    """Where the check ends, in plain words."""
    return [t(f"limits.{name}") for name in LIMITS]


def chain(report: Report, t: Translator) -> Node | None:
    """The C2PA store as a tree of manifests and ingredients; None without one."""
    tree = report.manifest.tree
    return _manifest_node(tree, report.manifest.label, short_name(report), t, 0) if tree else None


def _manifest_node(tree: dict[str, Any], label: str | None, title: str, t: Translator, depth: int) -> Node:
    manifest = tree.get("manifests", {}).get(label) if label else None
    if not isinstance(manifest, dict) or depth > MAX_DEPTH:
        return Node(title, (t("report.tree.unsigned"),))
    info = (manifest.get("claim_generator_info") or [{}])[0]
    name = " ".join(str(info[key]) for key in ("name", "version") if info.get(key))
    signature = manifest.get("signature_info") or {}
    signer = signature.get("issuer") or signature.get("common_name")
    lines = [t("report.tree.made_by", generator=name)] if name else []
    if signer:
        lines.append(t("report.tree.signed_by", signer=signer))
    if actions := _actions(manifest):
        lines.append(t("report.tree.actions", actions=", ".join(actions)))
    parts = [
        _manifest_node(tree, each.get("active_manifest"), _role(each, t), t, depth + 1)
        for each in manifest.get("ingredients", [])
        if isinstance(each, dict)
    ]
    return Node(title, tuple(lines), tuple(parts))


def _role(ingredient: dict[str, Any], t: Translator) -> str:
    role = str(ingredient.get("relationship", ""))
    return t.maybe(f"report.tree.role.{role}", str(ingredient.get("title") or role))


def _actions(manifest: dict[str, Any]) -> list[str]:
    found = []
    for assertion in manifest.get("assertions", []):
        if str(assertion.get("label", "")).startswith("c2pa.actions"):
            data = assertion.get("data") or {}
            found += [str(each.get("action", "")).removeprefix("c2pa.") for each in data.get("actions", [])]
    return found


def _manifest(report: Report, t: Translator) -> list[str]:
    reading = report.manifest
    lines = [
        t(f"manifest.{reading.state}", **({"signer": reading.signer} if _names_signer(reading.state) else {}))
    ]
    if reading.source_type:
        kind = reading.source_type.rsplit("/", 1)[-1]
        other = t("manifest.source.other", source_type=reading.source_type)
        lines.append(t.maybe(f"manifest.source.{kind}", other))
    if reading.timestamp and reading.timestamp_trusted:
        lines.append(t("manifest.time.trusted", time=reading.timestamp))
    if reading.state == "tampered":
        lines.append(t("report.codes", codes=", ".join(reading.codes)))
    return lines


def _names_signer(state: str) -> bool:
    return state in ("valid", "untrusted")


def _mark(report: Report, t: Translator) -> list[str]:
    mark = report.mark
    if not mark.present or mark.bit_accuracy is None:
        return [t("mark.absent")]
    accuracy = t.number(mark.bit_accuracy, "0.0%")
    return [t("mark.present", asset_id=mark.asset_id, accuracy=accuracy, p_false=_chance(mark.p_false, t))]


def _chance(share: float, t: Translator) -> str:
    """A chance in few digits; below 1e-30 its size tells nobody anything."""
    return f"{share:.1e}" if share >= LEAST_CHANCE else t("report.chance.less", limit=f"{LEAST_CHANCE:.0e}")


def _ledger(report: Report, t: Translator) -> list[str]:
    ledger = report.ledger
    if not ledger.found:
        return [t("ledger.none")]
    lines = [t(f"ledger.found.{ledger.found_by}", index=ledger.index)]
    lines.append(t("ledger.proven" if ledger.inclusion_verified else "ledger.unproven"))
    if ledger.perceptual_distance is not None:
        lines.append(t("ledger.distance", distance=ledger.perceptual_distance))
    return lines


def _foreign(report: Report, t: Translator) -> list[str]:
    if not report.foreign_marks:
        return [t("report.foreign.none")]
    return [_foreign_line(mark.as_dict(), t) for mark in report.foreign_marks]


def _foreign_line(mark: dict[str, Any], t: Translator) -> str:
    writer = mark["writer"] or t("report.foreign.unknown")
    return t("report.foreign.found", writer=writer, scheme=mark["scheme"], payload=mark["payload"])


def _detector(report: Report, t: Translator) -> list[str]:
    found = report.detector
    lines = [t(f"band.{found.band}")]
    if found.reason is not None:
        lines.append(say(found.reason, t))
    if report.video is not None:
        return lines + followed(report.video, t)
    judged = sum(face.band != "not_applicable" for face in found.faces)
    return lines + ([t("detector.faces", count=judged)] if judged else [])


def version_rows(report: Report) -> list[tuple[str, str]]:
    """Name and version or hash of all that the verdict depends on."""
    return sorted(report.versions.items(), key=lambda row: (re.match(r"model\.", row[0]) is not None, row[0]))


def counted(reports: Sequence[Report]) -> dict[str, int]:
    """How many files got each verdict, in the order of the tones."""
    return {name: count for name in TONES if (count := sum(each.verdict.value == name for each in reports))}
