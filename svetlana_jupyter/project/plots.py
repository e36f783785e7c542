"""Results as matplotlib figures: every function returns a `Figure` of its own, and none touches pyplot.

Two ways of counting against each other: the paper's Fig. 4 h, and the plot of Bland and Altman.

Which classes are taken for which.

Counts or shares of the classes by image or condition: a point a replicate, their mean and its interval.

What a classifier is most and least certain of, class by class, as small pictures.

What the figures have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from scipy.stats import t as student

from svetlana_jupyter.core.classes import ClassScheme
from svetlana_jupyter.core.display.channels import (
    DisplaySettings,
    initial_display_settings,
    render_pixels,
    sample_pixels,
)
from svetlana_jupyter.core.display.thumbnails import Thumbnail, ThumbnailSampling, take_thumbnails
from svetlana_jupyter.core.display.tiles import TileReader
from svetlana_jupyter.core.io.image_pair import ImagePair
from svetlana_jupyter.core.io.images import is_rgb
from svetlana_jupyter.core.io.table_files import format_list
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from svetlana_jupyter.core.stats.agreement import Agreement

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


def plot_agreement(table: pd.DataFrame, found: Agreement, class_name: str, by: str | None = None) -> Figure:
    """Plot counts against counts, and their differences; see `CountComparison.figure`."""
    if by is not None and by not in table:
        raise InputError(f"there is no column {by!r} to colour by; choose among {format_list(table.columns, 8)}.")
    figure = new_figure(9.5, 4.4)
    left, right = figure.subplots(1, 2)
    _points(left, table, "manual", "counted", by)
    _points(right, table, "mean", "difference", by)
    top = 1.05 * max(table["manual"].max(), table["counted"].max(), 1)
    ends = np.array([0.0, top])
    left.plot(ends, ends, color=QUIET, lw=1, ls=(0, (4, 3)), zorder=1, label="equal")
    if np.isfinite(found.slope):
        ends = np.array([table["manual"].min(), table["manual"].max()])
        line = f"{found.slope:.3g} × manual {found.intercept:+.3g}"
        left.plot(ends, found.slope * ends + found.intercept, color=INK, lw=1.5, zorder=2, label=line)
    left.set(xlim=(0, top), ylim=(0, top), aspect="equal", xlabel="counted by hand", ylabel="counted by the classifier")
    left.set_title(f"{class_name}: R² = {found.r2:.3f}, n = {found.n}", fontsize=11)
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


def _points(axes: Axes, table: pd.DataFrame, x: str, y: str, by: str | None) -> None:
    groups = [("", table)] if by is None else list(table.groupby(by, dropna=False))
    for i, (name, rows) in enumerate(groups):
        color = COLORS[i % len(COLORS)] if by else COLORS[3]
        axes.scatter(
            rows[x], rows[y], s=34, c=color, marker=MARKERS[i % len(MARKERS)], alpha=0.75, linewidths=0, zorder=3,
            label=str(name) if by else None,
        )  # fmt: skip


_BLUES = LinearSegmentedColormap.from_list("blues", ["#ffffff", "#9ecae1", "#08519c"])


def plot_confusion(confusion: pd.DataFrame, classes: ClassScheme, title: str) -> Figure:
    """Plot a confusion matrix: counts, shaded by the share of each row.

    Parameters
    ----------
    confusion : DataFrame
        Counts; rows are the truth, columns the predictions (`core.stats.metrics.Scores.confusion`).
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


_PIXELS = 96  # samples along a picture's side, at most
_ROOM = 1.4  # sides of a usual object that a picture shows


def plot_gallery(
    pair: Callable[[str], ImagePair],
    objects: Callable[[str], pd.DataFrame],
    classes: ClassScheme,
    table: pd.DataFrame,
    n: int,
) -> Figure:
    """Plot the ``n`` most and least certain objects of each predicted class, each with its outline.

    Parameters
    ----------
    pair, objects : callables
        Return an image pair and its object table by image name.
    classes : ClassScheme
    table : DataFrame
        Rows of `Project.predictions` with a prediction.
    n : int
    """
    shown = [info for info in classes if (table["predicted"] == info.name).any()]
    chosen = {info.name: _ends(table[table["predicted"] == info.name], n) for info in shown}
    wanted = pd.concat([part for ends in chosen.values() for part in ends])
    pictures = _pictures(pair, objects, wanted[~wanted.index.duplicated()])
    figure = new_figure(1.5 + 0.95 * n, 0.4 + 1.17 * 2 * len(shown))
    grid = figure.subplots(2 * len(shown), n, squeeze=False)
    for i, info in enumerate(shown):
        for j, (words, part) in enumerate(zip(("most\ncertain", "least\ncertain"), chosen[info.name])):
            row = grid[2 * i + j]
            for axes in row:
                axes.set_axis_off()
            for axes, (key, probability) in zip(row, zip(part.index, part["probability"])):
                _show(axes, *pictures[key], dark(info.color), f"{probability:.0%}")
            row[0].text(-0.12, 0.5, words, transform=row[0].transAxes, ha="right", va="center", fontsize=9, color=QUIET)
        grid[2 * i, 0].set_title(
            shorten([info.name])[0], loc="left", fontsize=11, fontweight="bold", color=dark(info.color)
        )
    return figure


def _ends(rows: pd.DataFrame, n: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the most certain and the least certain objects; none is in both."""
    ordered = rows.sort_values("probability", ascending=False, kind="stable")
    least = ordered.iloc[max(n, len(ordered) - n) :][::-1]
    return ordered.iloc[:n], least


def _pictures(
    pair_of: Callable[[str], ImagePair], objects: Callable[[str], pd.DataFrame], wanted: pd.DataFrame
) -> dict[tuple[str, int], tuple[Thumbnail, DisplaySettings]]:
    sides = pd.concat([wanted["y1"] - wanted["y0"], wanted["x1"] - wanted["x0"]])
    cut = ThumbnailSampling.of(max(8.0, _ROOM * float(sides.quantile(0.9))), _PIXELS)
    found: dict[tuple[str, int], tuple[Thumbnail, DisplaySettings]] = {}
    for image, rows in wanted.groupby(level="image", sort=False):
        pair = pair_of(str(image))
        palette = _palette(pair)
        labels = rows.index.get_level_values("object")
        thumbnails = take_thumbnails(pair, objects(str(image)).loc[labels], cut)
        found |= {(str(image), int(label)): (seen, palette) for label, seen in zip(labels, thumbnails)}
    return found


def _palette(pair: ImagePair) -> DisplaySettings:
    pixels = sample_pixels(TileReader(pair.image, pair.levels))
    return initial_display_settings(list(pair.channels), is_rgb(pair.image), pair.image.dtype, pixels)


def _show(axes: Axes, seen: Thumbnail, palette: DisplaySettings, color: str, words: str) -> None:
    pixels = render_pixels(seen.values, palette)
    shown = np.full((*pixels.shape[:2], 3), 255, np.uint8)  # white beyond the image
    shown[seen.inside] = pixels[seen.inside] if pixels.ndim == 3 else pixels[seen.inside][..., None]
    axes.imshow(shown, interpolation="nearest")
    if seen.own.any() and not seen.own.all():
        axes.contour(seen.own.astype(np.float32), [0.5], colors=[color], linewidths=1.3)
    axes.text(0.5, -0.03, words, transform=axes.transAxes, ha="center", va="top", fontsize=8, color=INK)
