"""Object styles, outlines and colors at every zoom."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.segmentation import find_boundaries

from svetlana_jupyter.core.annotations import Label
from svetlana_jupyter.core.classes import ClassScheme
from svetlana_jupyter.core.display.overlay import (
    EXCLUDED_STYLE,
    MAX_STYLES,
    PLAIN,
    Frame,
    ObjectStyle,
    ObjectStyles,
    class_styles,
    halo,
    halos,
    overlay_codes,
    overlay_color_table,
    rasterize_objects,
)
from svetlana_jupyter.core.display.tiles import PlaneRegion
from svetlana_jupyter.core.display.viewport import PixelBox

CLASSES = ClassScheme().with_added(["round", "long"])
ROUND, LONG = CLASSES.by_name("round"), CLASSES.by_name("long")


def labels(**rows):
    annotated = {int(name[1:]): Label(*row) for name, row in rows.items()}
    return lambda objects: annotated


def styles(object_styles, objects):
    return [object_styles.styles[i] for i in object_styles.style_indices(np.array(objects))]


@given(st.dictionaries(st.integers(1, 2**60), st.integers(0, 3)), st.lists(st.integers(1, 2**60)))
def test_styles_apply_to_the_given_objects_and_others_are_plain(annotated, requested):
    object_styles = ObjectStyles(styles=tuple(ObjectStyle(fill=i / 10) for i in range(4))).with_layer(
        list(annotated), list(annotated.values())
    )
    objects = np.unique(np.array([*requested, *annotated], np.int64))
    assert object_styles.style_indices(objects).tolist() == [annotated.get(int(label), 0) for label in objects]


def test_annotations_are_bold_predictions_thin_and_paler():
    predicted = pd.Series([ROUND.id, ROUND.id], index=[1, 2])
    object_styles = class_styles(CLASSES, labels(_2=("label", LONG.id)), predicted)
    thin, bold, plain = styles(object_styles, [1, 2, 3])
    assert (thin.color, thin.bold) == (ROUND.color, False)
    assert (bold.color, bold.bold) == (LONG.color, True)
    assert bold.fill > thin.fill > 0
    assert plain == PLAIN


def test_flagged_objects_are_bold_without_a_color_and_skipped_ones_plain():
    object_styles = class_styles(CLASSES, labels(_1=("ambiguous", 0), _2=("bad_segmentation", 0), _3=("skip", 0)))
    assert styles(object_styles, [1, 2, 3]) == [EXCLUDED_STYLE, EXCLUDED_STYLE, PLAIN]


def test_a_skipped_object_keeps_the_style_of_its_prediction():
    object_styles = class_styles(CLASSES, labels(_1=("skip", 0)), pd.Series([LONG.id], index=[1]))
    assert styles(object_styles, [1])[0].color == LONG.color


def test_a_hundred_classes_keep_their_colors():
    many = ClassScheme().with_added(f"class {i}" for i in range(100))
    object_styles = class_styles(many, labels(_1=("label", many.ids[99])))
    assert len(object_styles.styles) <= MAX_STYLES
    assert styles(object_styles, [1])[0].color == many.by_id(many.ids[99]).color


def test_without_annotations_all_objects_are_plain():
    empty = labels()
    assert styles(class_styles(CLASSES, empty, pd.Series(dtype="int64")), [1]) == [PLAIN]


def test_only_visible_objects_are_looked_up_and_another_key_renews_the_styles():
    requested = []
    answers = {7: Label("label", ROUND.id)}

    def labels_of(objects):
        requested.append(objects.tolist())
        return {label: answers[label] for label in objects.tolist() if label in answers}

    many = pd.Series(LONG.id, index=np.arange(1, 100_001))
    object_styles = class_styles(CLASSES, labels_of, many, key=1)
    assert requested == []
    assert [style.color for style in styles(object_styles, [7, 8])] == [ROUND.color, LONG.color]
    answers[8] = Label("label", ROUND.id)
    later = replace(object_styles, key=2)
    assert (later.key, [style.color for style in styles(later, [7, 8])]) == (2, [ROUND.color] * 2)
    assert requested == [[7, 8], [7, 8]]


def displayed(cells):
    """Return the label under each pixel of a raster."""
    return np.append(0, cells.objects)[cells.codes // 3]


RED, PALE_BLUE = ObjectStyle("#ff0000", bold=True, fill=1.0), ObjectStyle("#0000ff", fill=0.5)


@pytest.fixture
def labels_render():
    """Return touching disks with gaps between their labels."""
    y, x = np.mgrid[:24, :30]
    made = np.zeros((24, 30), np.int64)
    for label, (cy, cx, r) in {5: (7, 7, 5), 9: (8, 16, 5), 1000: (17, 22, 6)}.items():
        made[(y - cy) ** 2 + (x - cx) ** 2 <= r * r] = label
    return made


def whole_region(labels_render):
    return PlaneRegion(labels_render, PixelBox(0, 0, *labels_render.shape), 1)


def exact_frame(labels_render, scale):
    """Return the frame that shows exactly the image."""
    return Frame((0.0, 0.0), scale, tuple(round(n * scale) for n in labels_render.shape))


def nearest_labels(labels_render, frame):
    """Return the label at the center of each device pixel."""
    shown = np.zeros(frame.size, np.int64)
    for row in range(frame.size[0]):
        for column in range(frame.size[1]):
            y = math.floor(frame.origin[0] + (row + 0.5) / frame.scale)
            x = math.floor(frame.origin[1] + (column + 0.5) / frame.scale)
            if 0 <= y < labels_render.shape[0] and 0 <= x < labels_render.shape[1]:
                shown[row, column] = labels_render[y, x]
    return shown


@pytest.mark.parametrize("scale", [1, 2, 3, 7])
def test_a_thin_outline_is_the_inner_boundary_of_the_magnified_objects(labels_render, scale):
    cells = rasterize_objects(whole_region(labels_render), exact_frame(labels_render, scale), thin=1, bold=2)
    codes = overlay_codes(cells, ObjectStyles(styles=(PALE_BLUE,)))
    magnified = np.kron(labels_render, np.ones((scale, scale), int))
    np.testing.assert_array_equal(codes == 2, find_boundaries(magnified, mode="inner"))
    np.testing.assert_array_equal(codes > 0, magnified > 0)


@pytest.mark.parametrize("scale", [0.37, 0.5, 1.3, 2.7])
def test_a_thin_outline_fits_the_objects_at_any_zoom(labels_render, scale):
    frame = Frame((-3.3, 2.2), scale, (60, 80))
    cells = rasterize_objects(whole_region(labels_render), frame, thin=1, bold=2)
    rows, columns = cells.codes.shape
    shown = nearest_labels(labels_render, frame)[cells.offset[0] :, cells.offset[1] :][:rows, :columns]
    codes = overlay_codes(cells, ObjectStyles(styles=(PALE_BLUE,)))
    np.testing.assert_array_equal(codes == 2, find_boundaries(shown, mode="inner"))


def test_a_bold_outline_has_the_given_width_and_stays_inside(labels_render):
    cells = rasterize_objects(whole_region(labels_render), exact_frame(labels_render, 8), thin=1, bold=3)
    codes = overlay_codes(cells, ObjectStyles(styles=(RED,)))
    magnified = np.kron(labels_render, np.ones((8, 8), int))
    for label in (5, 9, 1000):
        inside = magnified == label
        line = (codes == 2) & inside
        outer = np.ones((7, 7), bool)
        cross = np.zeros((7, 7), bool)
        cross[3], cross[:, 3] = True, True
        assert not (line & ndimage.binary_erosion(inside, outer)).any()
        np.testing.assert_array_equal(line, inside & ~ndimage.binary_erosion(inside, cross, border_value=1))


@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(0.2, 8), st.sampled_from([1, 2, 4]))
def test_every_device_pixel_shows_the_object_at_its_center(y, x, scale, stride):
    labels = np.arange(1, 8 * 9 + 1).reshape(8, 9)
    labels[2:4] = 0
    region = PlaneRegion(labels, PixelBox(0, 0, 8 * stride, 9 * stride), stride)
    frame = Frame((y, x), scale, (37, 41))
    cells = rasterize_objects(region, frame, thin=1, bold=2)
    expected = nearest_labels(np.kron(labels, np.ones((stride, stride), int)), frame)
    for row in range(0, 37, 6):
        for column in range(0, 41, 5):
            assert cells.at(row, column) == expected[row, column]


def test_the_nearest_object_within_reach_is_returned(labels_render):
    cells = rasterize_objects(whole_region(labels_render), exact_frame(labels_render, 2), thin=1, bold=2)
    assert cells.at(2, 14) == 0
    assert cells.at(2, 14, reach=2) == 5
    assert cells.at(0, 59, reach=2) == 0
    assert cells.at(-40, -40, reach=3) == 0


def test_the_mask_of_a_displayed_object_is_returned(labels_render):
    cells = rasterize_objects(whole_region(labels_render), exact_frame(labels_render, 1), thin=1, bold=2)
    for label in (5, 9, 1000, 4, 2000):
        np.testing.assert_array_equal(displayed(cells) == label, labels_render == label)


def test_recoloring_changes_only_the_object(labels_render):
    cells = rasterize_objects(whole_region(labels_render), exact_frame(labels_render, 3), thin=1, bold=3)
    before = ObjectStyles(styles=(ObjectStyle(), PALE_BLUE, RED)).with_layer([5, 9], [1, 1])
    after = before.with_layer([9], [2])
    changed = overlay_codes(cells, before) != overlay_codes(cells, after)
    np.testing.assert_array_equal(changed, np.kron(labels_render == 9, np.ones((3, 3), bool)))


def test_without_outlines_objects_are_filled_to_their_border(labels_render):
    cells = rasterize_objects(whole_region(labels_render), exact_frame(labels_render, 3), thin=1, bold=3)
    codes = overlay_codes(cells, ObjectStyles(styles=(RED,)), outlines=False)
    assert set(np.unique(codes)) == {0, 1}


def test_the_color_table_has_opaque_lines_and_tinted_fills():
    table = overlay_color_table(ObjectStyles(styles=(ObjectStyle(), RED, PALE_BLUE)), opacity=0.4, ink="#202020")
    assert table[0].tolist() == [0, 0, 0, 0]
    assert table[1, 3] == 0
    assert table[2, :3].tolist() == [0x20] * 3
    assert table[3].tolist() == [255, 0, 0, 102]
    assert table[4].tolist() == [255, 0, 0, 255]
    assert table[5].tolist() == [0, 0, 255, 51]
    assert table[6].tolist() == [0, 0, 255, 255]


def test_neutral_outlines_fade_when_they_would_hide_small_objects():
    object_styles = ObjectStyles(styles=(ObjectStyle(), RED))
    alpha = [int(overlay_color_table(object_styles, 0.4, "#202020", side)[2, 3]) for side in (2, 6, 9, 40)]
    assert alpha[0] == 0
    assert alpha == sorted(alpha)
    assert overlay_color_table(object_styles, 0.4, "#202020", side=2)[4, 3] == 255


def test_a_halo_lies_outside_its_shape():
    shape = np.zeros((20, 20), bool)
    shape[8:12, 8:12] = True
    lines = halo(shape, inner=2, outer=1)
    assert not lines[shape].any()
    assert lines[9, 4:8].tolist() == [0, 2, 1, 1]


@pytest.mark.parametrize("widths", [(2, 1), (4, 2)])
def test_a_halo_follows_the_distance_from_its_shape(widths):
    shape = np.random.default_rng(3).random((40, 50)) > 0.98
    distance = ndimage.distance_transform_edt(~shape)
    expected = np.select([distance == 0, distance <= widths[0], distance <= sum(widths)], [0, 1, 2], 0)
    np.testing.assert_array_equal(halo(shape, *widths), expected)


def halo_raster(cells, objects):
    """Return the halos in the coordinates of the raster."""
    lines, (top, left) = halos(cells, objects, inner=2, outer=1)
    shown = np.zeros(np.add(cells.codes.shape, 20), np.uint8)
    shown[top + 10 : top + 10 + lines.shape[0], left + 10 : left + 10 + lines.shape[1]] = lines
    return shown[10:-10, 10:-10]


def test_the_halo_of_a_single_object_leaves_its_inside_free(labels_render):
    cells = rasterize_objects(whole_region(labels_render), exact_frame(labels_render, 3), thin=1, bold=3)
    shown = halo_raster(cells, (9,))
    np.testing.assert_array_equal(shown, halo(displayed(cells) == 9, 2, 1))


def test_several_objects_have_a_halo_each_and_a_line_where_they_touch():
    labels = np.zeros((12, 30), np.int32)
    labels[3:9, 3:8], labels[3:9, 8:13], labels[3:9, 20:26] = 5, 6, 7
    cells = rasterize_objects(whole_region(labels), exact_frame(labels, 4), thin=1, bold=3)
    shown = halo_raster(cells, (5, 6, 7))
    chosen = np.kron(labels > 0, np.ones((4, 4), bool))
    np.testing.assert_array_equal(np.where(chosen, 0, shown), halo(chosen, 2, 1))
    assert shown[24, 26:38].tolist() == [3, 3, 3, 0, 0, 1, 1, 0, 0, 3, 3, 3]
    assert shown[24, 80:104].tolist() == [0] * 3 + [3] * 18 + [0] * 3, "an object that stands alone has no line inside"
    assert not np.isin(halo_raster(cells, (5, 7))[24, 32:35], (1, 3)).all(), (
        "nothing is drawn inside what is not chosen"
    )


def test_objects_that_are_not_visible_have_no_halo(labels_render):
    cells = rasterize_objects(whole_region(labels_render), exact_frame(labels_render, 1), thin=1, bold=2)
    assert halos(cells, (4, 2000), inner=2, outer=1) is None
    assert halos(cells, (), inner=2, outer=1) is None
