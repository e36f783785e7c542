"""Two ways of counting against each other: the paper's Fig. 4 h, and the plot of Bland and Altman."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from svetlana_jupyter.core.tables import format_list
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.plots.style import COLORS, INK, MARKERS, QUIET, new_figure, remove_frame

if TYPE_CHECKING:
    from svetlana_jupyter.project.manual import CountComparison


def plot_agreement(comparison: CountComparison, by: str | None = None) -> Figure:
    """Return what `CountComparison.figure` does."""
    table, found = comparison.table, comparison.agreement
    if by is not None and by not in table:
        raise InputError(f"there is no column {by!r} to colour by; choose among {format_list(table.columns, 8)}.")
    figure = new_figure(9.5, 4.4)
    left, right = figure.subplots(1, 2)
    _points(left, comparison, "manual", "counted", by)
    _points(right, comparison, "mean", "difference", by)
    top = 1.05 * max(table["manual"].max(), table["counted"].max(), 1)
    ends = np.array([0.0, top])
    left.plot(ends, ends, color=QUIET, lw=1, ls=(0, (4, 3)), zorder=1, label="equal")
    if np.isfinite(found.slope):
        ends = np.array([table["manual"].min(), table["manual"].max()])
        line = f"{found.slope:.3g} × manual {found.intercept:+.3g}"
        left.plot(ends, found.slope * ends + found.intercept, color=INK, lw=1.5, zorder=2, label=line)
    left.set(xlim=(0, top), ylim=(0, top), aspect="equal", xlabel="counted by hand", ylabel="counted by the classifier")
    left.set_title(f"{comparison.class_name}: R² = {found.r2:.3f}, n = {found.n}", fontsize=11)
    left.legend(frameon=False, fontsize=9, loc="upper left")
    for value, style, text in (
        (found.bias, "-", f"bias {found.bias:+.3g}"),
        (found.limits[1], (0, (4, 3)), f"{found.limits[1]:+.3g}"),
        (found.limits[0], (0, (4, 3)), f"{found.limits[0]:+.3g}"),
    ):
        right.axhline(value, color=INK, lw=1.2, ls=style, zorder=1)
        right.annotate(
            text, (1, value), (-2, 3), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
            fontsize=9, color=INK,
        )  # fmt: skip
    right.axhline(0, color=QUIET, lw=0.8, zorder=0)
    reach = 1.25 * max(abs(found.limits[0]), abs(found.limits[1]), table["difference"].abs().max(), 1e-9)
    right.set(ylim=(-reach, reach), xlabel="mean of both counts", ylabel="classifier − by hand")
    right.set_title("Differences, with their 95 % limits of agreement", fontsize=11)
    right.margins(x=0.16)
    for axes in (left, right):
        remove_frame(axes)
    return figure


def _points(axes: Axes, comparison: CountComparison, x: str, y: str, by: str | None) -> None:
    groups = [("", comparison.table)] if by is None else list(comparison.table.groupby(by, dropna=False))
    for i, (name, rows) in enumerate(groups):
        color = COLORS[i % len(COLORS)] if by else COLORS[3]
        axes.scatter(
            rows[x], rows[y], s=34, c=color, marker=MARKERS[i % len(MARKERS)], alpha=0.75, linewidths=0, zorder=3,
            label=str(name) if by else None,
        )  # fmt: skip
