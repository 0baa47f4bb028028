"""Curves as SVG text: axes, lines, a legend; knows no pictures and draws none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

WIDTH, HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 20, 34, 70
_COLOURS: Final = ("#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#b8860b", "#555555")


def draw_sweep(
    title: str,
    labels: Sequence[str],
    curves: Mapping[str, Sequence[float]],
    limits: tuple[float, float] = (0.0, 1.0),
    unit: str = "",
) -> str:
    """One SVG: every curve has a value per label, nan leaves a gap. ValueError where a curve's length differs."""
    for name, values in curves.items():
        if len(values) != len(labels):
            raise ValueError(f"curve {name!r} has {len(values)} values for {len(labels)} labels")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="18" font-size="14">{escape(title)}</text>',
        *_axes(labels, limits, unit),
    ]
    for index, (name, values) in enumerate(curves.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        parts += _curve(values, colour, limits)
        x = _LEFT + 8 + 150 * (index % 4)
        parts.append(f'<text x="{x}" y="{HEIGHT - 8}" fill="{colour}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _axes(labels: Sequence[str], limits: tuple[float, float], unit: str) -> list[str]:
    parts = []
    for step in range(5):
        value = limits[0] + (limits[1] - limits[0]) * step / 4
        y = _y(value, limits)
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}{escape(unit)}</text>'
        )
    for index, label in enumerate(labels):
        x, y = _x(index, len(labels)), HEIGHT - _BOTTOM + 14
        parts.append(
            f'<text x="{x:.1f}" y="{y}" text-anchor="end" transform="rotate(-35 {x:.1f} {y})">{escape(label)}</text>'
        )
    return parts


def _curve(values: Sequence[float], colour: str, limits: tuple[float, float]) -> list[str]:
    points = [
        (_x(i, len(values)), _y(min(max(v, limits[0]), limits[1]), limits))
        for i, v in enumerate(values)
        if math.isfinite(v)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in points]
    return [f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8"/>', *dots]


def _x(index: int, count: int) -> float:
    return _LEFT + (WIDTH - _LEFT - _RIGHT) * (index + 0.5) / max(count, 1)


def _y(value: float, limits: tuple[float, float]) -> float:
    share = (value - limits[0]) / (limits[1] - limits[0])
    return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)
