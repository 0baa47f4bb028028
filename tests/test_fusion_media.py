"""Pictures in and out: formats, notes, limits."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fusion.media import Format, encode_picture, read_picture
from provenance.errors import MediaError


def texture(height: int = 61, width: int = 83, seed: int = 0) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] of smooth random colours."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes Pillow writes."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("kind", list(Format))
def test_a_picture_survives_its_own_encoding(kind: Format) -> None:
    rgb = texture()
    picture = read_picture(encode_picture(rgb, kind))
    assert picture.format is kind
    assert picture.rgb.shape == rgb.shape
    assert picture.rgb.flags.writeable
    assert picture.notes == ()
    difference = np.abs(picture.rgb.astype(int) - rgb)
    assert difference.mean() < (0.1 if kind is Format.PNG else 2.5)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animations_are_refused(kind: str) -> None:
    frames = [Image.fromarray(texture(seed=seed)) for seed in (1, 2)]
    with pytest.raises(MediaError) as caught:
        read_picture(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert caught.value.code == "media.animated"
