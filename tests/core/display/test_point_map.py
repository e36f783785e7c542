"""Map of objects: points, dots and colors, compared with drawings and distances computed point by point."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svetlana_jupyter.core.classes import PALETTE, ClassScheme
from svetlana_jupyter.core.display.channels import rgb_of
from svetlana_jupyter.core.display.encode import indexed_png
from svetlana_jupyter.core.display.overlay import Frame
from svetlana_jupyter.core.display.point_map import (
    EXTENT,
    MAX_COLORS,
    NEUTRAL,
    PROBABILITY_COLORS,
    PointMap,
    PointStyles,
    class_codes,
    compose_map,
    disk_sprite,
    dot_radius,
    image_codes,
    probability_codes,
    stamp,
)
from svetlana_jupyter.core.display.selection import rectangle_corners
from svetlana_jupyter.core.display.viewport import Viewport

COLORS = (NEUTRAL, "#ff0000", "#0000ff")
SIZE = (120, 160)


def styles_of(count: int, **changes) -> PointStyles:
    """Return styles in which the points are red and blue in turn."""
    codes = (1 + np.arange(count) % 2).astype(np.uint8)
    styles = PointStyles("first", COLORS, codes, np.empty(0, np.int64), np.zeros(count, bool))
    return replace(styles, **changes)


def spread(count: int, seed: int = 0) -> PointMap:
    return PointMap.from_coordinates(np.random.default_rng(seed).normal(size=(count, 2)))


def compose(point_map, styles, view=None, selected=(), **options):
    view = view or Viewport.fitted(point_map.shape, SIZE)
    return compose_map(point_map, styles, view, "#ffffff", selected=np.array(selected, np.int64), **options)


def color_at(layer, scene, point):
    """Return the RGBA color of a layer at a point (y, x) of the map; fully transparent outside of the screen."""
    row, column = np.floor((np.array(point) - scene.frame.origin) * scene.frame.scale).astype(int)
    return tuple(layer.table[layer.codes[row, column]].tolist())


def test_both_axes_have_one_scale_the_second_points_up_and_missing_objects_have_no_place():
    coordinates = np.array([[0.0, 0.0], [4.0, 1.0], [2.0, 2.0], [np.nan, 1.0]])
    made = PointMap.from_coordinates(coordinates)
    assert made.shape == (EXTENT // 2, EXTENT)
    np.testing.assert_allclose(made.points[:3], [[500, 0], [250, 1000], [0, 500]])
    assert np.isnan(made.points[3]).all()
    assert sorted(made.placed) == [0, 1, 2]


@pytest.mark.parametrize("coordinates", [np.empty((0, 2)), np.full((3, 2), np.nan), np.ones((4, 2))])
def test_maps_without_points_or_of_equal_points_can_be_drawn(coordinates):
    made = PointMap.from_coordinates(coordinates)
    styles = styles_of(len(coordinates))
    scene = compose(made, styles, selected=range(len(coordinates)))
    assert scene.dots.codes.any() == np.isfinite(coordinates).any()
    assert made.nearest(1, 1, 5, ~styles.hidden) == (0 if np.isfinite(coordinates).any() else -1)


@given(st.integers(0, 999), st.floats(0, 400), st.integers(1, 40))
def test_the_nearest_point_is_that_of_a_loop(seed, reach, count):
    random = np.random.default_rng(seed)
    made = spread(count, seed)
    y, x = random.uniform(-100, 1100, 2)
    candidates = random.random(count) < 0.7
    distances = {i: np.hypot(*(made.points[i] - (y, x))) for i in range(count) if candidates[i]}
    expected = min(distances, key=distances.__getitem__, default=-1)
    found = made.nearest(y, x, reach, candidates)
    assert found == (expected if expected >= 0 and distances[expected] <= reach else -1)


def test_a_lasso_holds_the_candidates_inside():
    made = PointMap.from_coordinates(np.stack(np.meshgrid(range(11), range(11)), axis=-1).reshape(-1, 2).astype(float))
    candidates = np.arange(121) != 60
    inside = made.inside(rectangle_corners((350, 350), (650, 650)), candidates)
    expected = [11 * y + x for y in (4, 5, 6) for x in (4, 5, 6) if 11 * y + x != 60]
    assert inside.tolist() == expected
    triangle = [(0.0, 0.0), (0.0, 1000.5), (1000.5, 0.0)]
    corner = made.inside(triangle, np.ones(121, bool))
    assert {(int(y), int(x)) for y, x in made.points[corner]} == {
        (100 * y, 100 * x) for y in range(11) for x in range(11) if x + y <= 10
    }


@given(st.integers(0, 999), st.floats(0.5, 6), st.integers(0, 60))
def test_the_topmost_dot_of_each_pixel_is_that_of_a_loop(seed, radius, count):
    random = np.random.default_rng(seed)
    frame = Frame((100.0, 200.0), 0.5, (30, 40))
    points = random.uniform((80, 180), (180, 300), (count, 2))  # also beyond each border
    sprite = disk_sprite((radius, radius + 2))
    expected = np.zeros(frame.size, int)
    for i, point in enumerate(points):
        row, column = np.floor((point - frame.origin) * frame.scale).astype(int)
        for (down, right), zone in zip(sprite.offsets, sprite.zones):
            if 0 <= row + down < 30 and 0 <= column + right < 40:
                expected[row + down, column + right] = 1 + 6 * i + zone
    np.testing.assert_array_equal(stamp(points, frame, sprite), expected)


def test_many_dots_are_drawn_in_parts_without_a_change():
    points = np.random.default_rng(0).uniform(0, 100, (40_000, 2))
    frame, sprite = Frame((0.0, 0.0), 6.0, (600, 600)), disk_sprite((3.0,))
    raster = stamp(points, frame, sprite)
    index = (raster[raster > 0] - 1) // 3
    rows, columns = np.nonzero(raster)
    centers = np.floor(points[index] * 6)
    assert (np.hypot(rows - centers[:, 0], columns - centers[:, 1]) < 3.5).all()
    assert index.max() == 39_999
    assert len(np.unique(index)) > 20_000


@given(st.floats(0.6, 12))
def test_a_disk_covers_its_area(radius):
    sprite = disk_sprite((radius,))
    coverage = np.array([1, 2 / 3, 1 / 3])[sprite.zones].sum()
    assert abs(coverage - np.pi * radius**2) < 0.35 * np.pi * radius + 1
    assert sprite.reach <= np.ceil(radius)


def test_dots_shrink_where_they_are_dense_and_grow_with_the_zoom():
    assert dot_radius(0.6, 100) > dot_radius(0.6, 5000) >= dot_radius(0.6, 10**6) > 1
    assert dot_radius(0.6, 5000) < dot_radius(2.0, 5000) < 6


@pytest.mark.parametrize("dpr", [1.0, 2.0])
def test_each_dot_has_the_color_of_its_class_and_labeled_ones_a_white_ring(dpr):
    made = PointMap.from_coordinates(np.array([[0.0, 0], [1, 0], [2, 0], [3, 1]]))
    styles = styles_of(4, labeled=np.array([2]))
    scene = compose(made, styles, Viewport.fitted(made.shape, SIZE, dpr))
    for i in (0, 1, 3):
        assert color_at(scene.dots, scene, made.points[i])[:3] == rgb_of(COLORS[1 + i % 2])
    assert color_at(scene.labeled, scene, made.points[2]) == (*rgb_of(COLORS[1]), 255)
    to_the_right = made.points[2] + np.array([0, 6.0 / scene.view.scale])
    assert color_at(scene.labeled, scene, to_the_right) == (255, 255, 255, 255)
    assert color_at(scene.labeled, scene, made.points[0])[3] == 0


def test_objects_of_the_test_set_are_neutral_and_never_marked():
    made = PointMap.from_coordinates(np.array([[0.0, 0], [1, 0], [2, 1]]))
    hidden = np.array([False, True, False])
    scene = compose(made, styles_of(3, hidden=hidden), selected=[1])
    assert color_at(scene.dots, scene, made.points[1])[:3] == rgb_of(NEUTRAL)
    assert scene.selection is None
    assert color_at(scene.dots, scene, made.points[0])[:3] == rgb_of(COLORS[1])
    marked = compose(made, styles_of(3, hidden=hidden), selected=[0, 1]).selection
    again = compose(made, styles_of(3, hidden=np.zeros(3, bool)), selected=[0, 1]).selection
    assert 0 < (marked.codes > 0).sum() < (again.codes > 0).sum()


def test_the_selection_is_marked_around_its_dot():
    made = PointMap.from_coordinates(np.array([[0.0, 0], [1, 0], [2, 1]]))
    scene = compose(made, styles_of(3), selected=[1])
    rows, columns = np.nonzero(scene.selection.codes)
    center = np.floor((made.points[1] - scene.frame.origin) * scene.frame.scale)
    distances = np.hypot(rows - center[0], columns - center[1])
    assert distances.min() > dot_radius(scene.view.scale, 3)
    assert distances.max() < 14
    assert color_at(scene.selection, scene, made.points[1])[3] == 0, "the color of the dot stays visible"


def test_the_ring_of_a_labeled_object_has_the_color_of_a_prediction_that_differs():
    made = spread(3)
    styles = replace(styles_of(3, labeled=np.array([0, 1])), others=np.array([-1, 2]))
    scene = compose(made, styles)
    centers = [np.floor((made.points[i] - scene.frame.origin) * scene.frame.scale).astype(int) for i in (0, 1)]
    rings = [tuple(scene.labeled.table[scene.labeled.codes[row, column - 6]][:3]) for row, column in centers]
    assert rings == [(255, 255, 255), rgb_of(COLORS[2])]


def test_new_colors_reuse_the_geometry_and_an_unchanged_scene_reuses_everything():
    made, styles = spread(300), styles_of(300, labeled=np.arange(9))
    first = compose(made, styles, selected=[5], selection_key=1)
    same = compose(made, styles, selected=[5], selection_key=1, previous=first)
    assert (same.dots, same.labeled, same.selection) == (first.dots, first.labeled, first.selection)
    changed = replace(styles, key="second", codes=np.full(300, 2, np.uint8))
    blue = compose(made, changed, selected=[5], selection_key=1, previous=first)
    assert blue.raster is first.raster
    assert blue.dots is not first.dots
    assert color_at(blue.dots, blue, made.points[100])[:3] == rgb_of(COLORS[2])
    other = compose(made, styles, selected=[6], selection_key=2, previous=first)
    assert (other.dots, other.labeled) == (first.dots, first.labeled)
    assert other.selection is not first.selection


def test_dragging_reuses_a_frame_with_a_margin_and_the_points_stay_in_place():
    made, styles = spread(200), styles_of(200)
    view = Viewport.fitted(made.shape, SIZE).zoomed(2)
    begun = compose(made, styles, view.panned(1, 1), moving=True)
    moved = compose(made, styles, view.panned(9, -11), previous=begun, moving=True)
    assert moved.dots is begun.dots
    assert moved.offset != begun.offset
    row, column = view.panned(9, -11).to_screen(*made.points[3].tolist())
    top, left = moved.offset
    code = moved.dots.codes[int(np.floor(row)) - top, int(np.floor(column)) - left]
    assert code > 0


def test_layers_can_be_sent_as_palette_images():
    made = spread(2000)
    colors = tuple(f"#{i:02x}{i:02x}{i:02x}" for i in range(MAX_COLORS))
    codes = (np.arange(2000) % MAX_COLORS).astype(np.uint8)
    scene = compose(made, styles_of(2000, colors=colors, codes=codes, labeled=np.arange(40)), selected=[1])
    for layer in (scene.dots, scene.labeled, scene.selection):
        assert len(layer.table) <= 256
        assert layer.codes.max() < len(layer.table)
        assert indexed_png(layer.codes, layer.table).startswith(b"\x89PNG")


def test_classes_have_their_colors_and_no_class_is_neutral():
    classes = ClassScheme().with_added(["one", "two", "three"]).with_recolored("three", "#123456")
    colors, codes = class_codes(np.array([3, 0, 1, 2]), classes)
    assert [colors[code] for code in codes] == ["#123456", NEUTRAL, *(info.color for info in list(classes)[:2])]
    many = ClassScheme().with_added([f"class {i}" for i in range(200)])
    for info in list(many):
        many = many.with_recolored(info.name, f"#0000{info.id:02x}")
    colors, codes = class_codes(np.arange(201), many)
    assert len(colors) == MAX_COLORS
    assert [colors[code] for code in codes[:3]] == [NEUTRAL, "#000001", "#000002"]
    assert colors[codes[200]] == NEUTRAL


def test_the_scale_of_probabilities_begins_at_the_lowest_possible_one():
    colors, codes = probability_codes(np.array([0.25, 1.0, np.nan, 0.1, 0.625]), 4)
    assert [colors[code] for code in codes[:4]] == [
        PROBABILITY_COLORS[0],
        PROBABILITY_COLORS[-1],
        NEUTRAL,
        PROBABILITY_COLORS[0],
    ]
    assert 0 < codes[0] < codes[4] < codes[1] < MAX_COLORS


def test_images_have_different_colors_as_long_as_there_are_some():
    colors, codes = image_codes(np.arange(len(PALETTE) + 1))
    assert len({colors[code] for code in codes[:-1]}) == len(PALETTE)
    assert NEUTRAL not in {colors[code] for code in codes}
    assert codes[-1] == codes[0]
