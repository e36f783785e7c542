"""Which classes are taken for which."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from svetlana_jupyter.core.classes import ClassScheme
from svetlana_jupyter.project.plots.style import INK, QUIET, dark, new_figure, shorten

_BLUES = LinearSegmentedColormap.from_list("blues", ["#ffffff", "#9ecae1", "#08519c"])


def plot_confusion(confusion: pd.DataFrame, classes: ClassScheme, title: str) -> Figure:
    """Plot a confusion matrix: counts, shaded by the share of each row.

    Parameters
    ----------
    confusion : DataFrame
        Counts; rows are the truth, columns the predictions (`core.scores.Scores.confusion`).
    classes : Classes
        Their colours stand beside the names.
    title : str
    """
    counts = confusion.to_numpy(float)
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    side = 1.6 + 0.85 * len(counts)
    figure = new_figure(max(4.4, side + 0.6), max(3.6, side))
    axes = figure.subplots()
    axes.imshow(share, cmap=_BLUES, vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "white" if share[row, column] > 0.55 else INK
            axes.text(column, row - 0.06, f"{count:,.0f}", ha="center", va="center", color=color, fontsize=12)
            axes.text(
                column, row + 0.26, f"{share[row, column]:.0%}", ha="center", va="center", color=color, fontsize=8
            )
    for set_ticks, names in ((axes.set_xticks, confusion.columns), (axes.set_yticks, confusion.index)):
        set_ticks(range(len(names)), shorten(list(names), 18))
    colors = {info.name: dark(info.color) for info in classes}
    for labels, names in ((axes.get_xticklabels(), confusion.columns), (axes.get_yticklabels(), confusion.index)):
        for label, name in zip(labels, names):
            label.set(color=colors.get(str(name), INK), fontweight="bold")
    if len(counts) > 3:
        for label in axes.get_xticklabels():
            label.set(rotation=40, ha="right", rotation_mode="anchor")
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("annotated", color=INK)
    axes.set_title(title, fontsize=10, color=QUIET, wrap=True)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_color(QUIET)
    for edge in np.arange(len(counts) - 1) + 0.5:
        axes.axhline(edge, color="white", lw=2)
        axes.axvline(edge, color="white", lw=2)
    return figure
