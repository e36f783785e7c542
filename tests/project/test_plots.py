"""Figures: they show the values of the tables in the class colors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex

from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.plots import plot_counts
from tests.project.test_class_fractions import add_run, draw
from tests.project.test_counts import NAMES, annotate_three_wells
from tests.project.test_evaluation import add_scored_run, held_out_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from svetlana_jupyter.project.project import Project


def rendered(figure: Figure) -> Figure:
    figure.savefig("/dev/null" if sys.platform != "win32" else "nul", format="png")
    return figure


def test_every_replicate_is_a_point(project: Project) -> None:
    annotate_three_wells(project)
    doses = pd.DataFrame({"image": NAMES, "dose": [0, 10, 10]})
    figure = rendered(project.plot.counts("dose", doses))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "10"]
    shares = project.counts("image").set_index(["class", "image"])["fraction"]
    groups: dict[str, list[np.ndarray]] = {}
    for points in axes.collections:
        if isinstance(points, PathCollection):
            groups.setdefault(to_hex(points.get_facecolor()[0]), []).append(np.sort(points.get_offsets()[:, 1]))
    assert set(groups) == {info.color for info in project.classes}
    for info in project.classes:
        low, high = groups[info.color]
        np.testing.assert_allclose(low, shares[info.name, "P1_A1"])
        np.testing.assert_allclose(high, sorted([shares[info.name, "P1_A2"], shares[info.name, "P2_A1"]]))
    assert "9 objects are left out" in figure.get_supxlabel()


def drawn_lines(figure: Figure) -> list[np.ndarray]:
    return [part.get_segments()[0] for part in figure.axes[0].collections if hasattr(part, "get_segments")]


def test_the_estimate_is_a_line_with_the_interval_of_the_table(large: Project) -> None:
    add_run(large, draw(large, 40))
    counts = large.counts("plate").set_index(["plate", "class"])
    lines = drawn_lines(rendered(large.plot.counts("plate", classes="bright")))
    for i, plate in enumerate(("P1", "P2", "P3")):
        row, (level, upright) = counts.loc[(plate, "bright")], lines[2 * i : 2 * i + 2]
        np.testing.assert_allclose(level[:, 1], row["fraction"])
        np.testing.assert_allclose(upright[:, 1], [row["low"], row["high"]])


def test_the_axis_ends_above_the_highest_marker(project: Project) -> None:
    wells = {"image": ["a", "b"], "class": "bright", "total": 50, "fraction": [0.5, 0.52], "estimate": [25, 26]}
    table = pd.DataFrame(wells).assign(low=np.nan, high=np.nan, left_out=0, note="")
    for value in ("fraction", "count"):
        figure = rendered(plot_counts(table, table, ["image"], [], project.classes.scheme, value))
        (axes,) = figure.axes
        points = [part for part in axes.collections if isinstance(part, PathCollection)]
        top = max(part.get_offsets()[:, 1].max() for part in points)
        above = np.diff(axes.transData.transform([(0, top), (0, axes.get_ylim()[1])])[:, 1])[0] * 72 / figure.dpi
        assert above > np.sqrt(points[0].get_sizes()[0]) / 2, "in points"


def test_numbers_of_objects_are_estimates_per_replicate(large: Project) -> None:
    add_run(large, draw(large, 40))
    row, each = large.counts().iloc[1], large.counts(["plate", "well"]).query("`class` == 'bright'")
    figure = rendered(large.plot.counts(value="count", classes="bright"))
    level, upright = drawn_lines(figure)
    np.testing.assert_allclose(level[:, 1], row["estimate"] / 7)
    np.testing.assert_allclose(upright[:, 1], [row["low"] * 84 / 7, row["high"] * 84 / 7])
    (points,) = (part for part in figure.axes[0].collections if isinstance(part, PathCollection))
    np.testing.assert_allclose(np.sort(points.get_offsets()[:, 1]), np.sort(each["estimate"]))


def test_a_group_without_interval_shows_its_estimate_and_the_reason(project: Project) -> None:
    annotate_three_wells(project)
    figure = rendered(project.plot.counts("image", classes="bright"))
    shares = project.counts("image").query("`class` == 'bright'")["fraction"]
    np.testing.assert_allclose([line[0, 1] for line in drawn_lines(figure)], shares)
    assert "not predicted yet" in figure.get_supxlabel()


def test_plot_arguments_are_checked(project: Project) -> None:
    annotate_three_wells(project)
    with pytest.raises(InputError, match="no class 'purple'"):
        project.plot.counts("image", classes="purple")
    with pytest.raises(InputError, match="Cannot plot value"):
        project.plot.counts("image", value="area")
    with pytest.raises(InputError, match="no column 'dose' to count by"):
        project.plot.counts("dose")


def test_compared_counts_have_one_color_per_treatment(project: Project) -> None:
    comparison = annotate_three_wells(project).compare_counts(
        pd.DataFrame({"image": NAMES, "bright": [3, 6, 4], "drug": ["x", "y", "y"]})
    )
    left, right = rendered(comparison.figure("drug")).axes
    assert [text.get_text() for text in left.get_legend().get_texts()][:2] == ["x", "y"]
    points = np.concatenate([group.get_offsets() for group in left.collections])
    assert sorted(map(tuple, points.tolist())) == [(3, 3), (4, 4), (6, 5)]
    heights = [line.get_ydata()[0] for line in right.lines]
    np.testing.assert_allclose(sorted(heights), sorted([comparison.bias, *comparison.limits, 0]))
    with pytest.raises(InputError, match="no column 'sex' to color by"):
        comparison.figure("sex")


def test_a_missing_treatment_has_a_color_of_its_own(project: Project) -> None:
    counts = pd.DataFrame({"image": NAMES, "bright": [3, 6, 4], "drug": ["x", None, "y"]})
    left, _ = rendered(annotate_three_wells(project).compare_counts(counts).figure("drug")).axes
    assert [text.get_text() for text in left.get_legend().get_texts()][:3] == ["x", "y", "nan"]


def test_the_gallery_shows_each_object_once_by_decreasing_probability(project: Project) -> None:
    run = add_scored_run(project, {})
    p = np.linspace(0.55, 0.99, 12, dtype=np.float32)
    table = pd.DataFrame({"predicted": [1, 2] * 6, "probability": p}, pd.RangeIndex(1, 13, name="object"))
    run.write_predictions("P1_A1", table.assign(p_1=np.where(table["predicted"] == 1, p, 1 - p), p_2=0.5))
    project.annotate("P1_A1", 12, "bright")
    figure = rendered(project.plot.gallery(2))
    rows = np.array(figure.axes).reshape(4, 2)
    texts = [[axes.texts[0].get_text() for axes in row if axes.images] for row in rows]
    expected = [[f"{p[i]:.0%}" for i in part] for part in ((10, 8), (0, 2), (9, 7), (1, 3))]
    assert texts == expected, "object 12 was annotated, so it is not shown"
    assert rows[0, 0].get_title(loc="left") == "dim"


def test_the_confusion_matrix_has_the_counts_of_the_report(project: Project) -> None:
    add_scored_run(project, {"network": held_out_table()})
    (axes,) = rendered(project.plot.confusion()).axes
    written = [int(text.get_text()) for text in axes.texts if "%" not in text.get_text()]
    assert written == project.evaluate().network.confusion.to_numpy().ravel().tolist()
