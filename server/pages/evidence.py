"""A check's report in plain words: JSON of `facsimile check` in, what the page shows out; adds no evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from server import report_text
from server.language import Translator
from server.report_text import Timeline

if TYPE_CHECKING:
    from detector.evidence import FramePoint, VideoEvidence

Tone = Literal["proof", "synthetic", "warn", "danger", "unknown", "steady"]

TONES: Final[Mapping[str, Tone]] = {
    "declared_synthetic": "synthetic",
    "synthetic_by_mark": "synthetic",
    "provenance_verified": "proof",
    "conflict": "danger",
    "tampered": "danger",
    "mark_transplant": "danger",
    "likely_manipulated": "warn",
    "inconclusive": "unknown",
    "no_evidence": "unknown",
}
_MANIFEST_TONES: Final[Mapping[str, Tone]] = {
    "valid": "proof",
    "tampered": "danger",
    "untrusted": "warn",
    "none": "unknown",
}
_BAND_TONES: Final[Mapping[str, Tone]] = {
    "weak": "unknown",
    "moderate": "warn",
    "strong": "warn",
    "none": "unknown",  # no trace found proves nothing
}
FRAME_HEADS: Final = ("checked.frame_time", "checked.frame_faces", "checked.frame_mark", "report.video.band")


@dataclass(frozen=True)
class Witness:
    """What one witness says: its name, how to show it, sentences, and facts for who wants them."""

    name: str
    tone: Tone
    lines: tuple[str, ...]
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Face:
    """One face: its number from 1, box [x, y, width, height] in pixels, what is said of it, its heat map."""

    number: int
    box: tuple[float, float, float, float]
    band: str
    reason: str | None
    heatmap: str | None
    heatmap_box: tuple[float, float, float, float] | None


@dataclass(frozen=True)
class Film:
    """What was looked at of a video: sentences, its line of time, a row per shot and one per frame, under heads."""

    lines: tuple[str, ...]
    timeline: Timeline
    duration: str
    shot_heads: tuple[str, ...]
    shots: tuple[tuple[str, ...], ...]
    frame_heads: tuple[str, ...]
    frames: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Branch:
    """A manifest, an action or an ingredient in the tree of what a file declares."""

    title: str
    lines: tuple[str, ...] = ()
    children: tuple[Branch, ...] = ()


def witnesses(report: Mapping[str, Any], t: Translator) -> list[Witness]:
    """Every witness of a report, the strongest kind of evidence first."""
    evidence = report["evidence"]
    found = [_manifest(evidence["manifest"], t), _mark(evidence["mark"], t), _ledger(evidence["ledger"], t)]
    judged, seen = evidence["detector"], _video(report)
    found += [_detector(judged, seen, t), *_foreign(evidence.get("foreign_marks") or [], t)]
    of = "" if seen is None else "_frame"
    return found + (_consistency(evidence.get("consistency"), of, t) if judged["applicable"] else [])


def faces(report: Mapping[str, Any], t: Translator) -> list[Face]:
    """The faces of a report, numbered as the picture shows them; of a video, those of one frame."""
    listed = report["evidence"]["detector"]["faces"]
    return [_face(number, each, t) for number, each in enumerate(listed, 1)]


def film(report: Mapping[str, Any], t: Translator) -> Film | None:
    """What the report tells of a video, shot by shot and frame by frame; None of a picture."""
    seen = _video(report)
    if seen is None:
        return None
    return Film(
        lines=(*report_text.video_lines(seen, t), *report_text.notes(report.get("notes") or [], t)),
        timeline=report_text.timeline(seen, t),
        duration=f"{t.number(seen.duration_s, '0.0')} s",
        shot_heads=report_text.shot_columns(t),
        shots=tuple(report_text.shot_rows(seen, t)),
        frame_heads=tuple(t(key) for key in FRAME_HEADS),
        frames=tuple(_frame_row(each, t) for each in seen.frames),
    )


def _frame_row(frame: FramePoint, t: Translator) -> tuple[str, ...]:
    marked = t("checked.frame_marked" if frame.marked else "checked.frame_bare")
    moment = f"{t.number(frame.time_s, '0.00')} s"
    return moment, str(frame.num_faces), marked, report_text.band_name(frame.band, t)


def _video(report: Mapping[str, Any]) -> VideoEvidence | None:
    from detector.evidence import VideoEvidence

    found = report["evidence"].get("video")
    return None if found is None else VideoEvidence.from_dict(found)


def manifest_tree(tree: Mapping[str, Any], t: Translator) -> Branch | None:
    """What a C2PA store declares, the active manifest as the root; None without one."""
    manifests = tree.get("manifests") or {}
    return _manifest_branch(tree.get("active_manifest"), manifests, t, depth=0)


def _manifest(found: Mapping[str, Any], t: Translator) -> Witness:
    state = str(found["state"])
    signer = found["signer"] or t("manifest.nobody")
    lines = [
        t(f"manifest.{state}", signer=signer) if state in ("valid", "untrusted") else t(f"manifest.{state}")
    ]
    if found["source_type"] and state != "none":
        kind = str(found["source_type"]).rsplit("/", 1)[-1]
        key = f"manifest.source.{kind}"
        lines.append(t.maybe(key, t("manifest.source.other", source_type=kind)))
    if found["timestamp"]:
        lines.append(t("manifest.time.trusted", time=t.date_of(found["timestamp"])))
    facts = [(t("fact.codes"), ", ".join(found["codes"]))] if found["codes"] else []
    return Witness("manifest", _MANIFEST_TONES.get(state, "unknown"), tuple(lines), tuple(facts))


def _mark(found: Mapping[str, Any], t: Translator) -> Witness:
    if not found["present"]:
        return Witness("mark", "unknown", (t("mark.absent"),))
    line = t(
        "mark.present",
        asset_id=found["asset_id"],
        accuracy=t.number(found["bit_accuracy"], "0.0%"),
        p_false=f"{found['p_false']:.0e}",
    )
    return Witness("mark", "synthetic", (line,), ((t("fact.asset_id"), str(found["asset_id"])),))


def _ledger(found: Mapping[str, Any], t: Translator) -> Witness:
    if not found["found"]:
        return Witness("ledger", "unknown", (t("ledger.none"),))
    lines = [t(f"ledger.found.{found['found_by']}", index=found["index"])]
    lines.append(t("ledger.proven") if found["inclusion_verified"] else t("ledger.unproven"))
    if found["perceptual_distance"] is not None:
        lines.append(t("ledger.distance", distance=found["perceptual_distance"]))
    return Witness("ledger", "proof" if found["inclusion_verified"] else "danger", tuple(lines))


def _detector(found: Mapping[str, Any], seen: VideoEvidence | None, t: Translator) -> Witness:
    band = str(found["band"])
    lines = [t.maybe(f"band.{band}", band)]
    if reason := reason_text(found, t):
        lines.append(reason)
    if seen is not None:
        lines += report_text.followed(seen, t)
    elif count := sum(face.get("band") != "not_applicable" for face in found["faces"]):
        lines.append(t("detector.faces", count=count))
    return Witness("detector", _BAND_TONES.get(band, "unknown"), tuple(lines))


def _consistency(found: Mapping[str, Any] | None, of: str, t: Translator) -> list[Witness]:
    if found is None or "stable" not in found:
        return []
    stable = bool(found["stable"])
    line = t(f"consistency.{'stable' if stable else 'flipped'}{of}")
    return [Witness("consistency", "steady" if stable else "warn", (line,))]


def _foreign(found: Sequence[Mapping[str, Any]], t: Translator) -> list[Witness]:
    """Public marks of other tools; anybody can copy them."""
    if not found:
        return []
    lines = (
        t("report.foreign.found", writer=writer, scheme=each["scheme"], payload=each["payload"])
        for each in found
        if (writer := each["writer"] or t("report.foreign.unknown"))
    )
    return [Witness("foreign", "warn", tuple(lines))]


def reason_text(found: Mapping[str, Any], t: Translator) -> str | None:
    """Why a band is what it is: by its code in the language, else as the report says it."""
    reason = found.get("reason")
    if not reason:
        return None
    code = found.get("reason_code")
    return t.maybe(f"reason.{code}", str(reason))


def _face(number: int, found: Mapping[str, Any], t: Translator) -> Face:
    band = str(found.get("band", "not_applicable"))
    around = found.get("heatmap_xyxy")
    heatmap = found.get("heatmap")
    return Face(
        number=number,
        box=_as_box(found["box_xyxy"]),
        band=t.maybe(f"band.name.{band}", band),
        reason=reason_text(found, t),
        heatmap=str(heatmap) if heatmap and around else None,
        heatmap_box=_as_box(around) if heatmap and around else None,
    )


def _as_box(xyxy: Sequence[float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = (round(float(each), 1) for each in xyxy)
    return left, top, round(right - left, 1), round(bottom - top, 1)


def _manifest_branch(
    label: str | None, manifests: Mapping[str, Any], t: Translator, depth: int
) -> Branch | None:
    found = manifests.get(label or "")
    if not isinstance(found, dict) or depth > 8:
        return None
    signature = found.get("signature_info") or {}
    maker = ", ".join(str(each.get("name", "?")) for each in found.get("claim_generator_info") or [])
    lines = [
        t("tree.signer", name=str(signature.get("issuer") or t("manifest.nobody"))),
        t("tree.maker", name=maker or t("manifest.nobody")),
    ]
    if signature.get("time"):
        lines.append(t("tree.time", time=t.date_of(str(signature["time"]))))
    children = [*_actions(found, t), *_ingredients(found, manifests, t, depth)]
    title = str(found.get("title") or t("tree.manifest"))
    return Branch(title, tuple(lines), tuple(children))


def _actions(found: Mapping[str, Any], t: Translator) -> list[Branch]:
    branches = []
    for assertion in found.get("assertions") or []:
        if str(assertion.get("label", "")).startswith("c2pa.actions"):
            for action in (assertion.get("data") or {}).get("actions", []):
                name = str(action.get("action", "?"))
                kind = str(action.get("digitalSourceType", "")).rsplit("/", 1)[-1]
                told = t.maybe(f"manifest.source.{kind}", kind)
                branches.append(Branch(t.maybe(f"action.{name}", name), (told,) if kind else ()))
    return branches


def _ingredients(
    found: Mapping[str, Any], manifests: Mapping[str, Any], t: Translator, depth: int
) -> list[Branch]:
    branches = []
    for ingredient in found.get("ingredients") or []:
        relation = str(ingredient.get("relationship", ""))
        title = t.maybe(f"tree.{relation}", relation or "?")
        inner = _manifest_branch(ingredient.get("active_manifest"), manifests, t, depth + 1)
        lines = () if inner else (t("tree.unsigned"),)
        branches.append(Branch(title, lines, (inner,) if inner else ()))
    return branches
