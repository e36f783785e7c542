"""Figures of counts, confusion matrix, agreement with manual counts, and objects.

Every plot function returns a new matplotlib `Figure` and does not use pyplot, so no global state changes.
"""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from svetlana_jupyter.core.display.channels import default_display_settings, render_pixels
from svetlana_jupyter.core.display.thumbnails import Thumbnail, ThumbnailSampling, take_thumbnails
from svetlana_jupyter.core.io.table_files import format_list
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from svetlana_jupyter.core.classes import ClassScheme
    from svetlana_jupyter.core.display.channels import DisplaySettings
    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.core.stats.agreement import Agreement

INK, QUIET = "#333333", "#8a8a8a"
DASHED = (0, (4, 3))
MARKERS = "oD^svP*X"
# The colors of Okabe and Ito; in this order, the first three can also be distinguished in grayscale.
COLORS = ("#d55e00", "#009e73", "#882255", "#0072b2", "#e69f00", "#56b4e9", "#cc79a7", "#000000")
BLUES = LinearSegmentedColormap.from_list("blues", ["#ffffff", "#9ecae1", "#08519c"])
MAX_UPRIGHT = 6  # tick labels with at most this many letters stay horizontal, even if there are many
THUMBNAIL_SAMPLES = 96  # maximum number of pixels per side
THUMBNAIL_MARGIN = 1.4  # side of a thumbnail, relative to the side of a large object


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of the given size in inches, with automatic layout."""
    return Figure(figsize=(width, height), layout="constrained")


def remove_frame(axes: Axes) -> None:
    """Remove the top and right spines, and draw the other spines in gray."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(QUIET)
    axes.tick_params(color=QUIET, labelcolor=INK)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_color(INK)


def use_bright_ink(figure: Figure) -> None:
    """Change the texts outside the axes of a figure to colors for a dark page."""
    texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        texts += [axes.xaxis.label, axes.yaxis.label, axes.title, *axes.get_xticklabels(), *axes.get_yticklabels()]
        axes.tick_params(color=QUIET)
    for text in texts:
        text.set_color(_brighten(to_hex(text.get_color())))


def _brighten(color: str) -> str:
    """Return a color that is legible on a dark page.

    >>> _brighten("#333333"), _brighten("#e69f00")
    ('#cccccc', '#e69f00')
    """
    rgb = to_rgb(color)
    brightness = float(np.dot(rgb, [0.299, 0.587, 0.114]))
    if brightness > 0.5:
        return to_hex(rgb)
    red, green, blue = (value + (1 - value) * 0.75 for value in rgb)
    return to_hex((red, green, blue))


def jitter(count: int, width: float) -> NDArray[np.float64]:
    """Return evenly spaced offsets for overlapping points, in random but fixed order."""
    offsets = np.linspace(-width / 2, width / 2, count) if count > 1 else np.zeros(count)
    return np.random.default_rng(count).permutation(offsets)


def darken(color: str) -> str:
    """Return a color, darkened if it is too bright for a line on white.

    >>> darken("#f0e442"), darken("#0072b2")
    ('#928b28', '#0072b2')
    """
    brightness = float(np.dot(to_rgb(color), [0.299, 0.587, 0.114]))
    factor = min(1.0, 130 / 255 / max(brightness, 1e-9))
    red, green, blue = (factor * value for value in to_rgb(color))
    return to_hex((red, green, blue))


def shorten(names: Sequence[object], max_length: int = 24) -> list[str]:
    """Return names as text, with the middle of long names replaced by an ellipsis."""
    texts, half = [str(name) for name in names], (max_length - 1) // 2
    return [text if len(text) <= max_length else f"{text[:half]}…{text[-half:]}" for text in texts]


def _split(table: pd.DataFrame, by: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    """Return the name and the rows of each group; missing values also form a group."""
    if not by:
        return [("all", table)]
    return [(" ".join(map(str, key)), rows) for key, rows in table.groupby(list(by), dropna=False)]


def _slant(axes: Axes) -> None:
    for label in axes.get_xticklabels():
        label.set(rotation=40, ha="right", rotation_mode="anchor")


def plot_agreement(table: pd.DataFrame, agreement: Agreement, class_name: str, by: str | None = None) -> Figure:
    """Plot counts against manual counts, and their differences (Bland–Altman).

    Parameters
    ----------
    table : DataFrame
        Table with ``manual``, ``counted``, ``mean`` and ``difference`` (`project.counts.CountComparison`).
    agreement : Agreement
    class_name : str
    by : str, optional
        A column that sets the color and marker of the points.
    """
    if by is not None and by not in table:
        raise InputError(f"There is no column {by!r} to color by. Choose among {format_list(table.columns, 8)}.")
    figure = new_figure(9.5, 4.4)
    left, right = figure.subplots(1, 2)
    _scatter_groups(left, table, "manual", "counted", by)
    _scatter_groups(right, table, "mean", "difference", by)
    top = 1.05 * max(table["manual"].max(), table["counted"].max(), 1)
    left.plot([0, top], [0, top], color=QUIET, lw=1, ls=DASHED, zorder=1, label="equal")
    if np.isfinite(agreement.slope):
        ends = np.array([table["manual"].min(), table["manual"].max()])
        line = f"{agreement.slope:.3g} × manual {agreement.intercept:+.3g}"
        left.plot(ends, agreement.slope * ends + agreement.intercept, color=INK, lw=1.5, zorder=2, label=line)
    left.set(xlim=(0, top), ylim=(0, top), aspect="equal", xlabel="manual count", ylabel="estimated count")
    left.set_title(f"{class_name}: R² = {agreement.r2:.3f}, n = {agreement.n}", fontsize=11)
    left.legend(frameon=False, fontsize=9, loc="upper left")
    low, high = agreement.limits
    for value, style, text in ((agreement.bias, "-", "bias "), (high, DASHED, ""), (low, DASHED, "")):
        right.axhline(value, color=INK, lw=1.2, ls=style, zorder=1)
        right.annotate(
            f"{text}{value:+.3g}", (1, value), (-2, 3), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", fontsize=9, color=INK,
        )  # fmt: skip
    right.axhline(0, color=QUIET, lw=0.8, zorder=0)
    reach = 1.25 * max(abs(low), abs(high), table["difference"].abs().max(), 1e-9)
    right.set(ylim=(-reach, reach), xlabel="mean of both counts", ylabel="classifier − manual count")
    right.set_title("Differences with 95 % limits of agreement", fontsize=11)
    right.margins(x=0.16)
    for axes in (left, right):
        remove_frame(axes)
    return figure


def _scatter_groups(axes: Axes, table: pd.DataFrame, x: str, y: str, by: str | None) -> None:
    for i, (name, rows) in enumerate(_split(table, [by] if by else [])):
        color = COLORS[i % len(COLORS)] if by else COLORS[3]
        axes.scatter(
            rows[x], rows[y], s=34, c=color, marker=MARKERS[i % len(MARKERS)], alpha=0.75, linewidths=0, zorder=3,
            label=name if by else None,
        )  # fmt: skip


def plot_confusion(confusion: pd.DataFrame, classes: ClassScheme, title: str) -> Figure:
    """Plot a confusion matrix of counts, shaded by the fraction of each row.

    Parameters
    ----------
    confusion : DataFrame
        Counts; rows are true classes, columns are predicted classes (`core.stats.metrics.Scores.confusion`).
    classes : ClassScheme
        The classes, in whose colors the class names are written.
    title : str
    """
    counts = confusion.to_numpy(float)
    share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    side = 1.6 + 0.85 * len(counts)
    figure = new_figure(max(4.4, side + 0.6), max(3.6, side))
    axes = figure.subplots()
    axes.imshow(share, cmap=BLUES, vmin=0, vmax=1)
    for row, column in np.argwhere(counts):
        color = "white" if share[row, column] > 0.55 else INK
        style: dict[str, Any] = {"ha": "center", "va": "center", "color": color}
        axes.text(column, row - 0.06, f"{counts[row, column]:,.0f}", fontsize=12, **style)
        axes.text(column, row + 0.26, f"{share[row, column]:.0%}", fontsize=8, **style)
    colors = {info.name: darken(info.color) for info in classes}
    for axis, names in ((axes.xaxis, confusion.columns), (axes.yaxis, confusion.index)):
        axis.set_ticks(range(len(names)), shorten(list(names), 18))
        for label, name in zip(axis.get_ticklabels(), names):
            label.set(color=colors.get(str(name), INK), fontweight="bold")
    if len(counts) > 3:
        _slant(axes)
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("annotated", color=INK)
    axes.set_title(title, fontsize=10, color=QUIET, wrap=True)
    axes.tick_params(length=0)
    axes.spines[:].set_color(QUIET)
    for edge in np.arange(len(counts) - 1) + 0.5:
        axes.axhline(edge, color="white", lw=2)
        axes.axvline(edge, color="white", lw=2)
    return figure


def plot_counts(
    table: pd.DataFrame,
    each: pd.DataFrame,
    by: Sequence[str],
    replicates: Sequence[str],
    classes: ClassScheme,
    value: str,
) -> Figure:
    """Plot the estimated fraction or count of each class per group.

    Parameters
    ----------
    table : DataFrame
        Counts by the columns of ``by`` (`project.counts.count_objects`).
    each : DataFrame
        Counts by the columns of ``by`` and ``replicates``; each row is one point.
    by : sequence of str
        Columns that define the groups along the axis; a single group if empty.
    replicates : sequence of str
        Columns that define the replicates; if empty, the group itself is the only point.
    classes : ClassScheme
        The classes to plot.
    value : {"fraction", "count"}
    """
    infos = [info for info in classes if info.name in set(table["class"])]
    class_labels = shorten([info.name for info in infos])
    groups = _split(table, by)
    names = shorten([name for name, _ in groups])
    width = min(16.0, max(4.2, 1.6 + len(names) * (0.28 + 0.24 * len(infos))))
    figure = new_figure(width, 4.2)
    axes = figure.subplots()
    pitch = 0.8 / max(1, len(infos))
    for position, ((_, group), (_, points)) in enumerate(zip(groups, _split(each, by), strict=True)):
        for i, (info, label) in enumerate(zip(infos, class_labels)):
            x = position + (i - (len(infos) - 1) / 2) * pitch
            row, rows = group[group["class"] == info.name].iloc[0], points[points["class"] == info.name]
            label = "" if position else label
            _draw_group(axes, x, row, rows[rows["total"] > 0], value, 0.5 * pitch, info.color, label)
    axes.set_xticks(range(len(names)), names)
    if len(names) > 4 and max(map(len, names)) > MAX_UPRIGHT:
        _slant(axes)
    axes.set_xlim(-0.6, len(names) - 0.4)
    for edge in np.arange(len(names) - 1) + 0.5:
        axes.axvline(edge, color=QUIET, alpha=0.2, lw=1, zorder=0)
    # The axis begins at 0, so a margin in proportion to the range of the values may be thinner than a marker.
    top = max(axes.get_ylim()[1], 1.05 * axes.dataLim.y1) if np.isfinite(axes.dataLim.y1) else axes.get_ylim()[1]
    if value == "fraction":
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set(ylabel="share of the objects", ylim=(-0.02, min(1.02, top)))
    else:
        axes.set(ylabel="objects", ylim=(-0.02 * top, top))
    axes.set_xlabel(", ".join(by))
    remove_frame(axes)
    if len(infos) > 1:
        columns = max(1, int(width / (0.65 + 0.09 * max(map(len, class_labels)))))
        figure.legend(loc="outside upper center", ncols=min(len(infos), columns), frameon=False)
    elif infos:
        axes.set_title(infos[0].name, fontsize=11, color=INK)
    caption = "\n".join(fill(line, int(14 * width)) for line in _counts_caption(table, replicates))
    figure.supxlabel(caption, fontsize=8.5, color=QUIET)
    return figure


def _counts_caption(table: pd.DataFrame, replicates: Sequence[str]) -> list[str]:
    """Return the explanation of a plot, and why an interval is missing."""
    parts = [f"one point per {' × '.join(replicates)}"] if replicates else []
    has_interval = table["low"].notna()
    parts += ["estimate with 95 % interval"] * bool(has_interval.any())
    left_out = int(table.loc[table["class"] == table["class"].iloc[0], "left_out"].sum())
    parts += [f"{left_out:,} objects are left out"] * bool(left_out)
    notes = table["note"][~has_interval & (table["note"] != "")].unique()[:1].tolist()
    return ["; ".join(parts), *notes]


def _draw_group(
    axes: Axes, x: float, row: pd.Series, points: pd.DataFrame, value: str, width: float, color: str, label: str
) -> None:
    """Draw the replicates of a group, and its estimate with the interval.

    For counts, the estimate is the mean per replicate: the interval is that of the fraction, for the number of objects
    that the replicates have.
    """
    if points.empty:
        axes.scatter([], [], c=color, label=label)
        return
    line, scale = darken(color), 1.0 if value == "fraction" else row["total"] / len(points)
    values = points["fraction" if value == "fraction" else "estimate"].to_numpy(float)
    axes.scatter(
        x + jitter(len(values), width), values, s=26, c=color, alpha=0.8, edgecolors=line, linewidths=0.5,
        zorder=2, label=label,
    )  # fmt: skip
    axes.hlines(scale * row["fraction"], x - 0.75 * width, x + 0.75 * width, color=line, lw=2, zorder=3)
    if np.isfinite(row["low"]):
        axes.vlines(x, scale * row["low"], scale * row["high"], color=line, lw=1.4, zorder=1)


def plot_gallery(
    pair: Callable[[str], ImagePair],
    objects: Callable[[str], pd.DataFrame],
    classes: ClassScheme,
    table: pd.DataFrame,
    n: int,
) -> Figure:
    """Plot the ``n`` most and least certain objects of each predicted class.

    Each object is shown with its outline.

    Parameters
    ----------
    pair, objects : callables
        Functions that return an image pair and its object table, by image name.
    classes : ClassScheme
    table : DataFrame
        Rows of `Project.predictions` with a prediction.
    n : int
    """
    predicted = {str(name): rows for name, rows in table.groupby("predicted")}
    infos = [info for info in classes if info.name in predicted]
    parts = [part for info in infos for part in _most_and_least_certain(predicted[info.name], n)]
    thumbnails = _take_thumbnails(pair, objects, pd.concat(parts))
    figure = new_figure(1.5 + 0.95 * n, 0.4 + 1.17 * len(parts))
    grid = figure.subplots(len(parts), n, squeeze=False)
    for i, (row, part) in enumerate(zip(grid, parts)):
        info, title = infos[i // 2], ("most\ncertain", "least\ncertain")[i % 2]
        name, color = "" if i % 2 else shorten([info.name])[0], darken(info.color)
        for axes in row:
            axes.set_axis_off()
        for axes, key, probability in zip(row, part.index, part["probability"]):
            _show_thumbnail(axes, *thumbnails[key], color, f"{probability:.0%}")
        row[0].text(-0.12, 0.5, title, transform=row[0].transAxes, ha="right", va="center", fontsize=9, color=QUIET)
        row[0].set_title(name, loc="left", fontsize=11, fontweight="bold", color=color)
    return figure


def _most_and_least_certain(rows: pd.DataFrame, n: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the ``n`` most and the ``n`` least certain objects, without overlap."""
    ordered = rows.sort_values("probability", ascending=False, kind="stable")
    return ordered.iloc[:n], ordered.iloc[max(n, len(ordered) - n) :][::-1]


def _take_thumbnails(
    pair_of: Callable[[str], ImagePair], objects: Callable[[str], pd.DataFrame], rows: pd.DataFrame
) -> Mapping[tuple[str, int], tuple[Thumbnail, DisplaySettings]]:
    sides = pd.concat([rows["y1"] - rows["y0"], rows["x1"] - rows["x0"]])
    sampling = ThumbnailSampling.of(max(8.0, THUMBNAIL_MARGIN * float(sides.quantile(0.9))), THUMBNAIL_SAMPLES)
    thumbnails: dict[tuple[str, int], tuple[Thumbnail, DisplaySettings]] = {}
    for image, group in rows.groupby(level="image", sort=False):
        name, labels = str(image), group.index.get_level_values("object")
        pair = pair_of(name)
        display = default_display_settings(pair)
        for label, thumbnail in zip(labels, take_thumbnails(pair, objects(name).loc[labels], sampling)):
            thumbnails[name, int(label)] = thumbnail, display
    return thumbnails


def _show_thumbnail(axes: Axes, thumbnail: Thumbnail, display: DisplaySettings, color: str, caption: str) -> None:
    pixels = render_pixels(thumbnail.values, display)
    shown = np.full((*pixels.shape[:2], 3), 255, np.uint8)  # white outside the image
    shown[thumbnail.inside] = pixels[thumbnail.inside] if pixels.ndim == 3 else pixels[thumbnail.inside][..., None]
    axes.imshow(shown, interpolation="nearest")
    if thumbnail.own.any() and not thumbnail.own.all():
        axes.contour(thumbnail.own.astype(np.float32), [0.5], colors=[color], linewidths=1.3)
    axes.text(0.5, -0.03, caption, transform=axes.transAxes, ha="center", va="top", fontsize=8, color=INK)
