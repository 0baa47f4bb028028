"""What laws and standards ask of a maker of synthetic pictures, as data; checks nothing.

Each row names its source and the machine check that stands for it. Rows without a check are a person's. This is an
engineer's reading: a lawyer confirms it against the primary texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Standard = Literal["eu", "cn", "ca"]
STANDARDS: tuple[Standard, ...] = ("eu", "cn", "ca")
TITLES: dict[Standard, str] = {
    "eu": "European Union: AI Act (2024/1689), article 50, and the code of practice on marking and labelling",
    "cn": "China: GB 45438-2025 and the measures for labelling synthetic content",
    "ca": "California: AI Transparency Act (SB 942), Business and Professions Code § 22757",
}


@dataclass(frozen=True)
class Requirement:
    """One requirement: its id, its source, what it asks, and the check that answers (None: a person)."""

    id: str
    standard: Standard
    source: str
    asks: str
    check: str | None
    for_a_person: str = ""


REQUIREMENTS = (
    Requirement(
        "eu.signed",
        "eu",
        "AI Act 50(2); code of practice 1.1",
        "Outputs carry digitally signed metadata that a reader can trust.",
        "manifest_trusted",
    ),
    Requirement(
        "eu.timestamped",
        "eu",
        "Code of practice 1.1",
        "The signature is time-stamped, so that it outlives the certificate.",
        "timestamped",
    ),
    Requirement(
        "eu.mark",
        "eu",
        "AI Act 50(2); code of practice 1.1",
        "Outputs carry an imperceptible, interwoven mark.",
        "mark_decodes",
    ),
    Requirement(
        "eu.says_generated",
        "eu",
        "AI Act 50(2)",
        "The metadata says whether the content is generated or manipulated.",
        "source_type",
    ),
    Requirement(
        "eu.layers_cross_refer",
        "eu",
        "Code of practice 1.1",
        "The id of one layer is found in the others.",
        "ids_agree",
    ),
    Requirement(
        "eu.no_private_data",
        "eu",
        "GDPR 5(1)(c); code of practice",
        "Nothing private stands inside the marking.",
        "no_private_data",
    ),
    Requirement(
        "eu.inputs_kept",
        "eu",
        "Code of practice 1.2",
        "Marks and metadata of inputs are kept.",
        "inputs_kept",
    ),
    Requirement(
        "eu.detector",
        "eu",
        "Code of practice, detectors",
        "A free detector is offered, and answers about copies that lost their metadata.",
        "recoverable",
        "See that the check is reachable by the public.",
    ),
    Requirement(
        "eu.deep_fake_label",
        "eu",
        "AI Act 50(4)",
        "A deep fake is disclosed at first exposure.",
        "visible_label",
        "Outputs shown to the public need `--label`, or a label beside them.",
    ),
    Requirement(
        "eu.records",
        "eu",
        "AI Act 12; code of practice, documentation",
        "What was made can be traced, and the record was not altered.",
        "ledger_sound",
    ),
    Requirement(
        "eu.legal_ground",
        "eu",
        "GDPR 6 and 9",
        "Each person's biometric data is used on a recorded ground.",
        "consented",
        "Whether the recorded ground is a sound one.",
    ),
    Requirement(
        "eu.informed",
        "eu",
        "AI Act 50(5)",
        "The information is clear, distinguishable and accessible.",
        None,
        "Look at the label, the check page and their wording.",
    ),
    Requirement(
        "cn.implicit_label",
        "cn",
        "GB 45438-2025, 5; annex (TC260:AIGC)",
        "The file's metadata holds one AIGC label: Label, ContentProducer, ProduceID and the propagation fields.",
        "xmp_aigc",
    ),
    Requirement(
        "cn.explicit_label",
        "cn",
        "GB 45438-2025, 4.3",
        "A visible label says 人工智能生成 or the like, its letters at least 5 % of the shortest side high.",
        "visible_label",
        "Where a visible label is due.",
    ),
    Requirement(
        "cn.digital_watermark",
        "cn",
        "Measures for labelling, article 5 (encouraged)",
        "An implicit label by digital watermark.",
        "mark_decodes",
    ),
    Requirement(
        "cn.log",
        "cn",
        "Measures for labelling, article 9",
        "Where a user receives content without a visible label, that is recorded and kept for six months.",
        "ledger_sound",
        "See that users agreed to their duty to label.",
    ),
    Requirement(
        "cn.real_name",
        "cn",
        "Deep synthesis provisions, article 9",
        "Users' identities are verified before the service is used.",
        None,
        "Outside this program.",
    ),
    Requirement(
        "cn.biometric_consent",
        "cn",
        "Deep synthesis provisions, article 14",
        "Whoever's face is edited was told and consented separately.",
        "consented",
    ),
    Requirement(
        "ca.latent",
        "ca",
        "§ 22757.3(b)(1)",
        "A latent disclosure names the provider, the system and its version, the time, and a unique id.",
        "latent_fields",
    ),
    Requirement(
        "ca.detectable",
        "ca",
        "§ 22757.3(b)(2)",
        "The provider's own tool detects the disclosure.",
        "manifest_trusted",
    ),
    Requirement(
        "ca.hard_to_remove",
        "ca",
        "§ 22757.3(b)(4)",
        "The disclosure is permanent or extraordinarily difficult to remove, as far as feasible.",
        "survives_recoding",
    ),
    Requirement(
        "ca.standards",
        "ca",
        "§ 22757.3(b)(3)",
        "It is consistent with widely accepted industry standards (C2PA, IPTC).",
        "iptc_agrees",
    ),
    Requirement(
        "ca.manifest",
        "ca",
        "§ 22757.3(a)",
        "Users may choose a visible disclosure.",
        "visible_label",
        "See that users are offered `--label`.",
    ),
    Requirement(
        "ca.tool",
        "ca",
        "§ 22757.2",
        "A detection tool is free, public, and reachable by upload, address and programming interface.",
        "recoverable",
        "See that the check is reachable by the public.",
    ),
    Requirement(
        "ca.licensees",
        "ca",
        "§ 22757.3(c)",
        "Licensees are bound by contract to keep the disclosure.",
        None,
        "Read the contracts.",
    ),
)
