"""What the figures have in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

INK, QUIET = "#333333", "#8a8a8a"
MARKERS = "oD^svP*X"
# Okabe and Ito's colours in an order that keeps the first three apart from each other in print too.
COLORS = ("#d55e00", "#009e73", "#882255", "#0072b2", "#e69f00", "#56b4e9", "#cc79a7", "#000000")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, in inches, that lays itself out."""
    return Figure(figsize=(width, height), layout="constrained")


def remove_frame(axes: Axes) -> None:
    """Take away what shows nothing."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(QUIET)
    axes.tick_params(color=QUIET, labelcolor=INK)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_color(INK)


def spread(count: int, width: float) -> NDArray[np.float64]:
    """Return places for points that would lie on each other: even, in an order that is no trend, the same each time."""
    places = np.linspace(-width / 2, width / 2, count) if count > 1 else np.zeros(count)
    return places[np.random.default_rng(count).permutation(count)]


def dark(color: str) -> str:
    """Return a colour dark enough for a line on white.

    >>> dark("#f0e442"), dark("#0072b2")
    ('#928b28', '#0072b2')
    """
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    brightness = float(np.dot(rgb, [0.299, 0.587, 0.114]))
    factor = min(1.0, 130 / brightness) if brightness else 1.0
    return "#" + "".join(f"{round(value * factor):02x}" for value in rgb)


def shorten(names: Sequence[object], most: int = 24) -> list[str]:
    """Return names cut in the middle where they are long."""
    texts = [str(name) for name in names]
    half = (most - 1) // 2
    return [text if len(text) <= most else f"{text[:half]}…{text[-half:]}" for text in texts]
