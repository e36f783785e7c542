"""What a classifier is most and least certain of, class by class, as small pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from svetlana_jupyter.core.contrast import DisplaySettings, initial_display_settings, sample, to_screen
from svetlana_jupyter.core.images import is_rgb
from svetlana_jupyter.core.pairing import ImagePair
from svetlana_jupyter.core.regions import Reader
from svetlana_jupyter.core.thumbnails import Cut, Thumbnail, take_thumbnails
from svetlana_jupyter.project.plots.style import INK, QUIET, dark, new_figure, shorten

if TYPE_CHECKING:
    from svetlana_jupyter.project.results import Results

_PIXELS = 96  # samples along a picture's side, at most
_ROOM = 1.4  # sides of a usual object that a picture shows


def plot_gallery(project: Results, table: pd.DataFrame, n: int) -> Figure:
    """Plot the ``n`` most and least certain objects of each predicted class, each with its outline.

    Parameters
    ----------
    project : Results
    table : DataFrame
        Rows of `Results.predictions` with a prediction.
    n : int
    """
    shown = [info for info in project.classes if (table["predicted"] == info.name).any()]
    chosen = {info.name: _ends(table[table["predicted"] == info.name], n) for info in shown}
    wanted = pd.concat([part for ends in chosen.values() for part in ends])
    pictures = _pictures(project, wanted[~wanted.index.duplicated()])
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


def _pictures(project: Results, wanted: pd.DataFrame) -> dict[tuple[str, int], tuple[Thumbnail, DisplaySettings]]:
    sides = pd.concat([wanted["y1"] - wanted["y0"], wanted["x1"] - wanted["x0"]])
    cut = Cut.of(max(8.0, _ROOM * float(sides.quantile(0.9))), _PIXELS)
    found: dict[tuple[str, int], tuple[Thumbnail, DisplaySettings]] = {}
    for image, rows in wanted.groupby(level="image", sort=False):
        pair = project.pair(str(image))
        palette = _palette(pair)
        objects = rows.index.get_level_values("object")
        thumbnails = take_thumbnails(pair, project.objects(str(image)).loc[objects], cut)
        found |= {(str(image), int(one)): (seen, palette) for one, seen in zip(objects, thumbnails)}
    return found


def _palette(pair: ImagePair) -> DisplaySettings:
    pixels = sample(Reader(pair.image, pair.levels))
    return initial_display_settings(list(pair.channels), is_rgb(pair.image), pair.image.dtype, pixels)


def _show(axes: Axes, seen: Thumbnail, palette: DisplaySettings, color: str, words: str) -> None:
    pixels = to_screen(seen.values, palette)
    shown = np.full((*pixels.shape[:2], 3), 255, np.uint8)  # white beyond the image
    shown[seen.inside] = pixels[seen.inside] if pixels.ndim == 3 else pixels[seen.inside][..., None]
    axes.imshow(shown, interpolation="nearest")
    if seen.own.any() and not seen.own.all():
        axes.contour(seen.own.astype(np.float32), [0.5], colors=[color], linewidths=1.3)
    axes.text(0.5, -0.03, words, transform=axes.transAxes, ha="center", va="top", fontsize=8, color=INK)
