"""The live curves of a training as SVG: crisp at any zoom, a few kilobytes, no plotting library at work."""

from __future__ import annotations

import math
from collections.abc import Sequence

WIDTH, HEIGHT = 472, 176
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 12, 26, 24
_LOSS, _SCORE = "#0072b2", "#d55e00"

Point = tuple[int, float]


def curves(epochs: Sequence[int], losses: Sequence[float], scores: Sequence[float | None], total: int) -> str:
    """Draw the loss and, beside it, the score, over an axis that is fixed from the start.

    Parameters
    ----------
    epochs : sequence of int, from 1
    losses, scores : sequences as long as ``epochs``
        A score may be None where none was computed; what is not finite is left out.
    total : int
        Epochs planned: the end of the axis, so that the curve grows and the axis stays.

    Returns
    -------
    str
        Two ``<svg>`` elements side by side.
    """
    last = max(total, *epochs, 2)
    loss = [(epoch, loss) for epoch, loss in zip(epochs, losses) if math.isfinite(loss)]
    score = [(epoch, score) for epoch, score in zip(epochs, scores) if score is not None and math.isfinite(score)]
    top = _round_up(max((value for _, value in loss), default=1.0))
    none = "small sets are scored by cross-validation at the end" if loss else ""
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:8px 16px">'
        + _plot("Loss", loss, last, top, _LOSS, "{:.3f}", "")
        + _plot("Score on held-out objects", score, last, 1.0, _SCORE, "{:.0%}", none)
        + "</div>"
    )


def _plot(title: str, points: Sequence[Point], last: int, top: float, color: str, form: str, otherwise: str) -> str:
    base, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    across, up = right - _LEFT, base - _TOP
    parts = [_text(_LEFT, 14, title, weight=600)]
    for share in (0.0, 0.5, 1.0):
        level = base - up * share
        parts.append(f'<path d="M{_LEFT} {level}H{right}" stroke="currentColor" opacity=".15"/>')
        parts.append(_text(_LEFT - 6, level + 4, f"{top * share:.2g}", anchor="end", opacity=0.7))
    parts.append(_text(_LEFT, HEIGHT - 7, "1", opacity=0.7))
    parts.append(_text(right, HEIGHT - 7, f"epoch {last}", anchor="end", opacity=0.7))
    said = otherwise
    if points:
        placed = [(_LEFT + across * (epoch - 1) / (last - 1), base - up * value / top) for epoch, value in points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        x, y = placed[-1]
        said = form.format(points[-1][1])
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>')
        parts.append(_text(right, 14, said, anchor="end", weight=600, color=color))
    else:
        parts.append(_text(_LEFT + across / 2, base - up / 4, otherwise, anchor="middle", opacity=0.7))
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" style="max-width:100%" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{title}: {said}" fill="currentColor" font-size="11">{"".join(parts)}</svg>'
    )


def _text(
    x: float,
    y: float,
    text: str,
    anchor: str = "start",
    opacity: float = 1.0,
    weight: int = 400,
    color: str = "currentColor",
) -> str:
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" opacity="{opacity}" font-weight="{weight}" fill="{color}">'
        f"{text}</text>"
    )


def _round_up(value: float) -> float:
    """Return the next of 0.1, 0.2, 0.5, 1, 2, 5 …, so that the axis seldom changes."""
    decade = 10.0 ** math.floor(math.log10(max(value, 0.1)))
    return next(step * decade for step in (1, 2, 5, 10) if value <= step * decade * (1 + 1e-9))
