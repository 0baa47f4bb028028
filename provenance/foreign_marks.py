"""Reads marks that others put into pictures: invisible-watermark's dwtDct and rivaGan; knows none of our keys.

Stable Diffusion's reference scripts mark with dwtDct ("StableDiffusionV1" in 136 bits, or SDXL's 48 bits). The
scheme, from its published description: luma-chroma split (BT.601), one Haar step of the first chroma plane, blocks of
4 x 4 of its low band in rows; in each block the largest coefficient but the first carries one bit by the half of a
step of 36 it falls into; bits repeat round robin. They survive neither crop, nor resize, nor JPEG at usual qualities.

Anyone can write these payloads: they are a claim, never a proof.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
Bits = npt.NDArray[np.uint8]
RivaDecoder = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""float32 [1, 3, 1, H, W] in [-1, 1], BGR → float32 [1, 32] logits."""

STEP = 36.0
BLOCK = 4
MIN_PIXELS = 256 * 256
MOST_CHANCE = 1e-8
RIVA_BITS = 32
RIVA_MARGIN = 6.0  # mean |logit|: 0.7 to 2.5 in unmarked pictures, 14 to 21 in marked ones


@dataclass(frozen=True)
class Payload:
    """A known payload: who writes it, and its bits."""

    writer: str
    bits: tuple[int, ...]


def _bits_of(data: bytes) -> tuple[int, ...]:
    return tuple(int(bit) for bit in np.unpackbits(np.frombuffer(data, np.uint8)))


KNOWN = (
    Payload("Stable Diffusion 1 and 2 (StableDiffusionV1)", _bits_of(b"StableDiffusionV1")),
    Payload("Stable Diffusion 2 (SDV2)", _bits_of(b"SDV2")),
    Payload(
        "Stable Diffusion XL",
        tuple(int(c) for c in f"{0b101100111110110010010000011110111011000110011110:048b}"),
    ),
)


@dataclass(frozen=True)
class ForeignMark:
    """A mark of somebody else's scheme.

    p_chance  chance that fair random bits agree this well; a picture's bits are not quite fair, so an estimate.
              None where the scheme has no known payload to compare with
    """

    scheme: str
    writer: str | None
    payload: str
    agreement: float | None
    p_chance: float | None

    def as_dict(self) -> dict[str, object]:
        """An element of `evidence.foreign_marks`."""
        return {
            "scheme": self.scheme,
            "writer": self.writer,
            "payload": self.payload,
            "agreement": self.agreement,
            "p_chance": self.p_chance,
        }


def read_foreign_marks(
    rgb: UInt8Array, riva: RivaDecoder | None = None, known: Sequence[Payload] = KNOWN
) -> tuple[ForeignMark, ...]:
    """Every foreign mark found in a picture, uint8 [H, W, 3] RGB; none in one of less than 65 536 pixels."""
    if rgb.shape[0] * rgb.shape[1] < MIN_PIXELS:
        return ()
    votes = dwt_dct_votes(rgb)
    found = [mark for payload in known if (mark := _compare(votes, payload)) is not None]
    if riva is not None and (mark := _read_riva(rgb, riva)) is not None:
        found.append(mark)
    return tuple(found)


def dwt_dct_votes(rgb: UInt8Array) -> Bits:
    """uint8 [N]: the bit that each 4 x 4 block of the Haar low band of the first chroma plane carries, in rows."""
    plane = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV)[..., 1].astype(np.float32)
    height, width = (n // 4 * 4 for n in plane.shape)
    quads = plane[:height, :width].reshape(height // 2, 2, width // 2, 2)
    low = quads.sum(axis=(1, 3)) / 2  # Haar approximation (Mallat 1989), orthonormal
    rows, columns = (n // BLOCK for n in low.shape)
    blocks = low[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
    coefficients = np.abs(blocks.transpose(0, 2, 1, 3).reshape(-1, BLOCK * BLOCK)[:, 1:])
    return np.asarray(coefficients.max(axis=1) % STEP > STEP / 2, np.uint8)


def decode_round_robin(votes: Bits, length: int) -> Bits:
    """uint8 [length]: the majority of the votes numbered i, i + length, i + 2 length …"""
    ones = np.bincount(np.arange(len(votes)) % length, votes, length)
    count = np.bincount(np.arange(len(votes)) % length, minlength=length)
    return np.asarray(2 * ones >= count, np.uint8)


def chance_of(agreeing: int, length: int) -> float:
    """P(at least so many of `length` fair coin tosses come up as wanted)."""
    return sum(math.comb(length, k) for k in range(agreeing, length + 1)) / 2.0**length


def _compare(votes: Bits, payload: Payload) -> ForeignMark | None:
    wanted = np.array(payload.bits, np.uint8)
    if len(votes) < len(wanted):
        return None
    bits = decode_round_robin(votes, len(wanted))
    agreeing = int((bits == wanted).sum())
    chance = chance_of(agreeing, len(wanted))
    if chance > MOST_CHANCE:
        return None
    share = agreeing / len(wanted)
    return ForeignMark("invisible-watermark dwtDct", payload.writer, _hex(bits), share, chance)


def _read_riva(rgb: UInt8Array, riva: RivaDecoder) -> ForeignMark | None:
    """32 bits of unknown meaning, stated only where the network is sure of nearly all of them.

    The scheme has no presence test of its own; how often unmarked pictures pass this one is in docs/log.md.
    """
    frame = rgb[..., ::-1].astype(np.float32) / 127.5 - 1  # OpenCV's order, as its encoder has it
    logits = riva(np.ascontiguousarray(frame.transpose(2, 0, 1))[None, :, None])
    soft = np.asarray(logits, np.float32).reshape(-1)[:RIVA_BITS]
    if len(soft) < RIVA_BITS or float(np.abs(soft).mean()) < RIVA_MARGIN:
        return None
    return ForeignMark("invisible-watermark rivaGan", None, _hex((soft > 0.52).astype(np.uint8)), None, None)


def _hex(bits: Bits) -> str:
    return np.packbits(bits).tobytes().hex()
