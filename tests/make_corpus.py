"""Makes tests/assets/c2pa: small sealed pictures drawn by code, intact or tampered with in one way each.

Run `python tests/make_corpus.py` in the repository's root to make all of it anew: keys, files and expected.json belong
together. The certificates last a hundred years, so that the corpus does not expire.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "datasets"), str(ROOT / "tests")]

import av  # noqa: E402
import cv2  # noqa: E402
import numpy as np  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from seals import (  # noqa: E402
    ASSET_ID,
    FORMATS,
    camera_picture,
    keys_of,
    pem,
    picture,
    sample_manifest,
    sealed_sample,
    sealed_swap,
    swap_manifest,
)

from provenance import certificates  # noqa: E402
from provenance.certificates import Chain, es256_signer, fingerprint, make_chain, make_leaf  # noqa: E402
from provenance.claim import SWAP_SOURCE_TYPE, Ingredient, xmp_packet  # noqa: E402
from provenance.container import join_parts, png_chunk, split_parts, without_c2pa_store  # noqa: E402
from provenance.keys import SigningKeys, Trust, make_keys  # noqa: E402
from provenance.signing import sign  # noqa: E402
from provenance.xmp import embed_xmp  # noqa: E402

FOLDER = ROOT / "tests" / "assets" / "c2pa"
JPEG, PNG, WEBP, MP4 = "image/jpeg", "image/png", "image/webp", "video/mp4"
DAYS = 36_500


@dataclass(frozen=True)
class Case:
    """One file of the corpus and what it must prove to a reader with the corpus's trust lists."""

    name: str
    mime: str
    data: bytes
    state: str
    ours: bool
    code: str
    why: str


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def clip() -> bytes:
    """Ten frames of 64 x 48 in MP4."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        with av.open(str(path), "w") as file:
            stream = file.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            frame = cv2.GaussianBlur(
                np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8), (0, 0), 5
            )
            for number in range(10):
                rolled = np.ascontiguousarray(np.roll(frame, number, 1))
                file.mux(stream.encode(av.VideoFrame.from_ndarray(rolled, format="rgb24")))
            file.mux(stream.encode())
        return path.read_bytes()


def sealed_clip(keys: SigningKeys) -> bytes:
    plain = clip()
    inputs = [Ingredient(plain, MP4, "parentOf"), Ingredient(picture(JPEG, 2), JPEG, "componentOf")]
    return sign(plain, MP4, swap_manifest(MP4), keys, inputs)


def lasting_chain(organisation: str) -> Chain:
    return make_chain(organisation, leaf_days=DAYS)


def own_keys(folder: Path) -> tuple[SigningKeys, Chain]:
    """Keys of a home whose certificates last."""
    make_keys(folder / "keys", "Example Studio")
    chain = lasting_chain("Example Studio")
    keys = keys_of(chain, SigningKeys.load(folder / "keys"))
    return keys, chain


def other_leaf(chain: Chain, keys: SigningKeys) -> tuple[SigningKeys, str]:
    """A second leaf of the same issuing CA, and its certificate."""
    key, now = ec.generate_private_key(ec.SECP256R1()), certificates.datetime.now(certificates.UTC)
    leaf = make_leaf(
        key.public_key(), chain.issuing, chain.issuing_key, organisation="Example Studio", now=now, days=DAYS
    )
    trust = Trust(own_anchors=pem(chain.root).decode(), pinned_leaves=pem(leaf).decode())
    signer = es256_signer(key)
    return replace(keys, chain_pem=pem(leaf, chain.issuing), sign_claim=signer, trust=trust), fingerprint(
        leaf
    )


def cases(keys: SigningKeys, chain: Chain, camera: Chain) -> Iterator[Case]:
    swaps = {mime: sealed_swap(keys, mime) for mime in FORMATS} | {MP4: sealed_clip(keys)}
    for mime, data in swaps.items():
        code = "assertion.bmffHash.match" if mime == MP4 else "assertion.dataHash.match"
        yield Case("intact", mime, data, "valid", True, code, "as it was sealed")
    for mime in FORMATS:
        data, parts = swaps[mime], split_parts(swaps[mime])
        big = max(without_c2pa_store(parts), key=lambda part: len(part.raw))
        middle = data.index(big.raw) + len(big.raw) // 2
        mismatch = "assertion.dataHash.mismatch"
        yield Case(
            "pixel_byte", mime, flip(data, middle), "tampered", False, mismatch, "a byte of the picture"
        )
    data = swaps[JPEG]
    mismatch, link = "assertion.dataHash.mismatch", "assertion.hashedURI.mismatch"
    broken = "claimSignature.mismatch"
    yield Case("appended_byte", JPEG, data + b"\0", "tampered", False, mismatch, "a byte behind the end")
    at = data.index(b"Iptc4xmpExt:DigitalSourceType") + 60
    yield Case("xmp_edit", JPEG, flip(data, at), "tampered", False, mismatch, "the XMP packet")
    yield Case(
        "assertion_byte", JPEG, flip(data, data.index(b"notAllowed")), "tampered", False, link, "an assertion"
    )
    at = data.index(b"facsimile " + ASSET_ID.encode())
    yield Case("claim_byte", JPEG, flip(data, at), "tampered", False, broken, "the claim")
    at = data.rindex(b"\xf6\x58\x40") + 9
    yield Case("signature_byte", JPEG, flip(data, at), "tampered", False, broken, "the signature")
    yield from _moved(swaps, keys)
    yield from _strangers(keys, chain, camera)


def _moved(swaps: dict[str, bytes], keys: SigningKeys) -> Iterator[Case]:
    donor = split_parts(swaps[JPEG])
    kept = without_c2pa_store(donor)
    at = next(number for number, part in enumerate(donor) if part not in kept)
    store = [part for part in donor if part not in kept]
    packet = xmp_packet(ASSET_ID, SWAP_SOURCE_TYPE, keys.organisation)
    other = split_parts(embed_xmp(picture(JPEG, seed=9), JPEG, packet))
    data = join_parts([*other[:at], *store, *other[at:]])
    mismatch = "assertion.dataHash.mismatch"
    yield Case("transplanted", JPEG, data, "tampered", False, mismatch, "the manifest of another picture")
    yield Case("stripped", JPEG, join_parts(kept), "none", False, "", "the manifest cut out")
    pixels = np.asarray(cv2.imdecode(np.frombuffer(swaps[JPEG], np.uint8), cv2.IMREAD_COLOR))
    recoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
    yield Case("recoded", JPEG, recoded, "none", False, "", "encoded anew")
    png = swaps[PNG]
    start = png.index(b"\xa1cpadY") + 200
    parts = split_parts(png[:start] + b"smuggled" + png[start + 8 :])
    padded = join_parts([png_chunk("caBX", part.data) if part.name == "caBX" else part for part in parts])
    yield Case("padding", PNG, padded, "valid", True, "claimSignature.validated", "padding is not signed")
    film = swaps[MP4]
    free = (16).to_bytes(4, "big") + b"free" + b"smuggled"
    yield Case(
        "free_box", MP4, film + free, "valid", True, "assertion.bmffHash.match", "a free box is not hashed"
    )
    at = film.index(b"mdat") + 100
    yield Case("mdat_byte", MP4, flip(film, at), "tampered", False, "assertion.bmffHash.mismatch", "a frame")


def _strangers(keys: SigningKeys, chain: Chain, camera: Chain) -> Iterator[Case]:
    unknown, twin = "facsimile.signer.unknown", lasting_chain("Example Studio")
    data = sealed_swap(keys_of(twin, keys))
    yield Case("namesake", JPEG, data, "untrusted", False, unknown, "a CA of his own under our name")
    rogue, _ = other_leaf(chain, keys)
    data = sealed_sample(rogue)
    yield Case(
        "other_leaf", JPEG, data, "untrusted", False, "facsimile.key.notPinned", "our CA, a key not pinned"
    )
    for mime in (JPEG, PNG):
        shot = camera_picture(camera, mime=mime)
        yield Case(
            "listed_camera", mime, shot, "valid", False, "signingCredential.trusted", "a listed signer"
        )
    shot = camera_picture(camera)
    stranger = camera_picture(lasting_chain("Other Cameras"))
    yield Case(
        "unknown_camera", JPEG, stranger, "untrusted", False, unknown, "an intact file of an unknown signer"
    )
    match = "assertion.dataHash.match"
    over = sealed_swap(keys, target=shot)
    yield Case("over_camera", JPEG, over, "valid", True, match, "ours, the target signed by a camera")
    big = max(without_c2pa_store(split_parts(shot)), key=lambda part: len(part.raw))
    spoilt = flip(shot, shot.index(big.raw) + len(big.raw) // 2)
    over = sealed_swap(keys, target=spoilt)
    yield Case("over_tampered", JPEG, over, "valid", True, match, "ours, the target tampered with before")
    wholly = sign(picture(WEBP), WEBP, sample_manifest(WEBP), keys)
    yield Case("sample", WEBP, wholly, "valid", True, match, "wholly synthetic")


def main() -> None:
    certificates.ROOT_DAYS = certificates.ISSUING_DAYS = DAYS
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        keys, chain = own_keys(Path(folder))
        camera = lasting_chain("Camera Works")
        rows = []
        for case in cases(keys, chain, camera):
            suffix = {**FORMATS, MP4: ".mp4"}[case.mime]
            name = f"{case.name}{suffix}"
            (FOLDER / name).write_bytes(case.data)
            fields = {
                "mime": case.mime,
                "state": case.state,
                "ours": case.ours,
                "code": case.code,
                "why": case.why,
            }
            rows.append({"file": name, **fields})
    trust = {
        "own_anchors": pem(chain.root).decode(),
        "pinned_leaves": pem(chain.leaf).decode(),
        "listed_anchors": pem(camera.root).decode(),
    }
    (FOLDER / "expected.json").write_text(json.dumps({"trust": trust, "files": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
