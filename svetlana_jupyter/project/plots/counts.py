"""Counts or shares of the classes by image or condition: a point a replicate, their mean and its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from scipy.stats import t as student

from svetlana_jupyter.core.classes import ClassScheme
from svetlana_jupyter.project.plots.style import INK, QUIET, dark, new_figure, remove_frame, shorten, spread

LONG = 6  # letters of a name that is written upright where there are many


def plot_counts(
    table: pd.DataFrame, by: Sequence[str], replicates: Sequence[str], classes: ClassScheme, value: str
) -> Figure:
    """Plot counts by group.

    Parameters
    ----------
    table : DataFrame
        As of `Results.counts`, by the columns of ``by`` and ``replicates``.
    by : sequence of str
        What makes the groups along the axis; all are one group without.
    replicates : sequence of str
        What a point stands for. Without replicates, a point stands for its group, with the interval over its objects.
    classes : Classes
        Which of the classes in the table have which colour.
    value : {"fraction", "count"}
    """
    groups = table[list(by)].drop_duplicates().sort_values(list(by)) if by else pd.DataFrame(index=[0])
    shown = [info for info in classes if info.name in set(table["class"])]
    names = shorten([" ".join(map(str, row)) for row in groups.to_numpy()]) if by else ["all"]
    width = min(16.0, max(4.2, 1.6 + len(names) * (0.28 + 0.24 * len(shown))))
    figure = new_figure(width, 4.2)
    axes = figure.subplots()
    pitch = 0.8 / len(shown) if shown else 0.8
    for i, (info, name) in enumerate(zip(shown, shorten([info.name for info in shown]))):
        rows = table[table["class"] == info.name]
        for place, (_, group) in enumerate(groups.iterrows()):
            here = rows
            for column in by:
                wanted = group[column]
                here = here[here[column].isna() if pd.isna(wanted) else here[column] == wanted]
            at = place + (i - (len(shown) - 1) / 2) * pitch
            _draw(axes, at, here, value, 0.5 * pitch, info.color, bool(replicates), name if place == 0 else None)
    axes.set_xticks(range(len(names)), names)
    if len(names) > 4 and max(map(len, names)) > LONG:
        axes.tick_params(axis="x", rotation=40)
        for text in axes.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.6, len(names) - 0.4)
    for edge in np.arange(len(names) - 1) + 0.5:
        axes.axvline(edge, color="#eeeeee", lw=1, zorder=0)
    axes.set_xlabel(", ".join(by))
    axes.set_ylabel("share of the objects" if value == "fraction" else "objects")
    if value == "fraction":
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    top = axes.get_ylim()[1]
    axes.set_ylim(-0.02 if value == "fraction" else -0.02 * top, min(1.02, top) if value == "fraction" else top)
    remove_frame(axes)
    if len(shown) > 1:
        longest = max(len(name) for name in shorten([info.name for info in shown]))
        columns = max(1, int(width / (0.65 + 0.09 * longest)))
        figure.legend(loc="outside upper center", ncols=min(len(shown), columns), frameon=False)
    elif shown:
        axes.set_title(shown[0].name, fontsize=11, color=INK)
    interval = "mean with its 95 % interval" if replicates else "95 % interval over objects"
    points = f"a point: one {' × '.join(replicates)}; " if replicates else ""
    left_out = int(table.loc[table["class"] == table["class"].iloc[0], "left_out"].sum())
    without = f"; {left_out:,} objects are left out" if left_out else ""
    figure.supxlabel(f"{points}{interval}{without}", fontsize=8.5, color=QUIET)
    return figure


def mean_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of replicates with its 95 % interval (Student's t); NaN bounds where there is one replicate.

    >>> [round(value, 3) for value in mean_interval(np.array([1.0, 2.0, 3.0]))]
    [2.0, -0.484, 4.484]
    """
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return mean, float("nan"), float("nan")
    half = float(student.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return mean, mean - half, mean + half


def _draw(
    axes: Axes, at: float, rows: pd.DataFrame, value: str, width: float, color: str, replicated: bool, name: str | None
) -> None:
    values = rows[value].to_numpy(float)
    values = values[np.isfinite(values)]
    if not len(values):
        axes.scatter([], [], c=color, label=name)
        return
    line = dark(color)
    if replicated:
        mean, low, high = mean_interval(values)
        axes.scatter(
            at + spread(len(values), width), values, s=26, c=color, alpha=0.8, edgecolors=line, linewidths=0.5,
            zorder=2, label=name,
        )  # fmt: skip
        axes.hlines(mean, at - 0.75 * width, at + 0.75 * width, color=line, lw=2, zorder=3)
    else:
        row = rows.iloc[0]
        low, high = (row["low"], row["high"]) if value == "fraction" else (float("nan"), float("nan"))
        axes.scatter([at], values, s=40, c=color, edgecolors=line, linewidths=0.7, zorder=3, label=name)
    if np.isfinite(low):
        floor = max(low, 0.0)
        axes.vlines(at, floor, min(high, 1.0) if value == "fraction" else high, color=line, lw=1.4, zorder=1)
