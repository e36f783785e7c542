"""Scene composition: exact pixels and reuse of unchanged layers."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from svetlana_jupyter.core.display.channels import ChannelDisplay, DisplaySettings
from svetlana_jupyter.core.display.overlay import ObjectStyle, ObjectStyles
from svetlana_jupyter.core.display.scene import BRIGHT_INK, DARK_INK, compose, scale_bar, tiles_to_read
from svetlana_jupyter.core.display.tiles import TileReader
from svetlana_jupyter.core.display.viewport import Viewport
from tests.core.display.test_overlay import displayed

GRAY = DisplaySettings((ChannelDisplay("gray", "#ffffff", (0, 255)),))
STYLES = ObjectStyles(key="first", styles=(ObjectStyle("#ff0000", fill=1.0),))
SIZE = (60, 80)


class CountingReader(TileReader):
    """Tile reader that counts its reads."""

    reads = 0

    def load(self, group):
        self.reads += 1
        return super().load(group)


@pytest.fixture
def image():
    values = np.random.default_rng(0).integers(0, 100, (1, 300, 400), np.uint8)
    return CountingReader(xr.DataArray(values, dims=("c", "y", "x")))


@pytest.fixture
def mask():
    y, x = np.mgrid[:300, :400]
    labels = 1 + (y // 10) * 40 + x // 10
    labels[(y % 10 > 7) | (x % 10 > 7)] = 0
    return CountingReader(xr.DataArray(labels, dims=("y", "x")))


def view(**changes):
    return replace(Viewport((100.0, 120.0), 2.0, SIZE), **changes)


def test_the_image_layer_holds_the_pixels_of_its_box(image, mask):
    still = compose(image, mask, view(), GRAY)
    moving = compose(image, mask, view().panned(1, 1), GRAY, previous=still, moving=True)
    around = (77, 89, 122, 150)  # while an image is dragged: the screen and a quarter of it on each side
    for scene, edges in ((still, (85, 100, 115, 140)), (moving, around)):
        box = scene.image.box
        np.testing.assert_array_equal(scene.image.pixels, image.array.values[0, box.y0 : box.y1, box.x0 : box.x1])
        assert (box.y0, box.x0, box.y1, box.x1) == edges


@settings(max_examples=50)
@given(y=st.floats(0, 300), x=st.floats(0, 400), scale=st.floats(0.1, 20), dpr=st.sampled_from([1.0, 1.5, 2.0]))
def test_every_screen_pixel_shows_the_object_below_it(y, x, scale, dpr):
    labels = np.arange(1, 300 * 400 + 1).reshape(300, 400)
    reader = TileReader(xr.DataArray(labels[None], dims=("c", "y", "x")))
    at = Viewport((y, x), scale, SIZE, dpr)
    scene = compose(reader, TileReader(xr.DataArray(labels, dims=("y", "x"))), at, GRAY)
    stride = scene.image.box.width // scene.image.pixels.shape[1]
    for row in range(3, 60, 13):
        for column in range(5, 80, 17):
            label = scene.object_at(row, column, reach=0)
            point = at.to_image(row, column)
            inside = all(0 <= p < n for p, n in zip(point, labels.shape))
            if label and inside:
                place = np.divmod(label - 1, 400)
                # largest distance from the point to the center of its device pixel and to its cell
                assert np.abs(np.subtract(place, point) + 0.5).max() <= 1.01 / at.device_scale + stride
            elif inside:
                near_border = min(*point, 300 - point[0], 400 - point[1])
                assert near_border <= 1.01 / at.device_scale + stride


def test_the_same_arguments_give_the_same_scene(image, mask):
    arguments = (image, mask, view(), GRAY, STYLES)
    first, second = compose(*arguments, selected=413), compose(*arguments, selected=413)
    assert (first.view, first.frame, first.scale_bar, first.ink) == (
        second.view,
        second.frame,
        second.scale_bar,
        second.ink,
    )
    for name in ("image", "overlay", "selection"):
        assert getattr(first, name).key == getattr(second, name).key
    np.testing.assert_array_equal(first.overlay.codes, second.overlay.codes)
    with pytest.raises(FrozenInstanceError):
        first.ink = "#000000"


def test_a_new_annotation_recolors_without_reading_pixels(image, mask):
    previous = compose(image, mask, view(), GRAY, STYLES)
    image.reads = mask.reads = 0
    after = compose(image, mask, view(), GRAY, ObjectStyles(key="second", styles=STYLES.styles), previous=previous)
    assert image.reads == mask.reads == 0
    assert after.image is previous.image
    assert after.raster is previous.raster
    assert after.overlay is not previous.overlay


def test_dragging_within_the_margin_computes_nothing(image, mask):
    previous = compose(image, mask, view(), GRAY, STYLES, selected=413, moving=True)
    after = compose(image, mask, view().panned(10, -12), GRAY, STYLES, selected=413, previous=previous)
    assert (after.image, after.overlay, after.selection) == (previous.image, previous.overlay, previous.selection)
    assert np.subtract(after.offset, previous.offset).tolist() == [10, -12]


def test_dragging_beyond_the_margin_makes_a_new_frame_around_the_view(image, mask):
    previous = compose(image, mask, view(), GRAY, STYLES, moving=True)
    after = compose(image, mask, view().panned(30, 0), GRAY, STYLES, previous=previous, moving=True)
    assert after.frame != previous.frame
    assert after.offset == previous.offset == (-15, -20)


def test_a_new_position_is_composed_without_a_margin(image, mask):
    still = compose(image, mask, view(), GRAY, STYLES)
    for elsewhere in (view().panned(5, 0), view().zoomed(1.1)):
        scene = compose(image, mask, elsewhere, GRAY, STYLES, previous=still)
        assert scene.frame.size == elsewhere.device_size
        assert scene.offset == (0, 0)


def test_another_zoom_plane_or_image_reuses_no_layer(image, mask):
    volume = TileReader(xr.DataArray(np.zeros((1, 4, 300, 400), np.uint8), dims=("c", "z", "y", "x")))
    labels = TileReader(xr.DataArray(np.zeros((4, 300, 400), int), dims=("z", "y", "x")))
    previous = compose(volume, labels, view(), GRAY, STYLES)
    for after in (
        compose(volume, labels, view().zoomed(1.5), GRAY, STYLES, previous=previous),
        compose(volume, labels, view(plane=1), GRAY, STYLES, previous=previous),
        compose(image, mask, view(), GRAY, STYLES, previous=previous),
    ):
        assert after.raster is not previous.raster
        assert after.overlay is not previous.overlay


def test_the_selected_plane_of_a_volume_is_displayed():
    values = np.arange(5, dtype=np.uint8)[None, :, None, None] * np.ones((1, 1, 30, 40), np.uint8)
    volume = TileReader(xr.DataArray(values, dims=("c", "z", "y", "x")))
    labels = TileReader(xr.DataArray(values[0].astype(int), dims=("z", "y", "x")))
    scene = compose(volume, labels, Viewport.fitted((30, 40), SIZE, plane=3), GRAY)
    assert np.unique(scene.image.pixels).tolist() == [3]
    assert scene.object_at(30, 40) == 3


def test_reading_is_bounded_by_the_screen_not_the_image():
    large = xr.DataArray(np.broadcast_to(np.uint8(7), (1, 200_000, 200_000)), dims=("c", "y", "x"))
    labels = xr.DataArray(np.broadcast_to(np.int32(7), (200_000, 200_000)), dims=("y", "x"))
    scene = compose(TileReader(large), TileReader(labels), Viewport.fitted((200_000, 200_000), SIZE), GRAY)
    assert scene.image.pixels.size <= 4 * 60 * 80
    assert scene.object_at(30, 40) == 7


def test_missing_tiles_are_listed_and_each_loaded_group_refines_the_scene():
    values = np.broadcast_to(np.arange(20_000, dtype=np.uint16) % 251, (1, 20_000, 20_000))
    image = TileReader(xr.DataArray(values, dims=("c", "y", "x")))
    labels = TileReader(xr.DataArray(np.broadcast_to(np.int32(7), (20_000, 20_000)), dims=("y", "x")))
    near = Viewport((9000.0, 9000.0), 0.2, (600, 800))
    scene = compose(image, labels, near, GRAY, allow_missing=True)
    assert not scene.image.pixels.any()
    assert scene.object_at(300, 400) == 0
    while scene.missing:
        scene.missing[0].load()
        later = compose(image, labels, near, GRAY, previous=scene, allow_missing=True)
        assert len(later.missing) == len(scene.missing) - 1
        assert compose(image, labels, near, GRAY, previous=later, allow_missing=True).raster is later.raster
        scene = later
    whole = compose(image, labels, near, GRAY)
    np.testing.assert_array_equal(scene.image.pixels, whole.image.pixels)
    np.testing.assert_array_equal(scene.raster.codes, whole.raster.codes)


def test_prefetched_tiles_are_not_missing_when_they_are_shown(image, mask):
    pieces = tiles_to_read(image, mask, view())
    for piece in pieces:
        piece.load()
    assert pieces
    assert not tiles_to_read(image, mask, view())
    image.reads = mask.reads = 0
    compose(image, mask, view(), GRAY)
    assert image.reads == mask.reads == 0


def test_the_selection_is_a_line_around_the_object_only(image, mask):
    scene = compose(image, mask, view(), GRAY, selected=413)
    layer = scene.selection
    shown = np.zeros(scene.frame.size, bool)
    rows, columns = layer.codes.shape
    shown[layer.offset[0] :, layer.offset[1] :][:rows, :columns] = layer.codes > 0
    inside, raster = np.zeros(scene.frame.size, bool), scene.raster
    inside[raster.offset[0] :, raster.offset[1] :][: raster.codes.shape[0], :] = displayed(raster) == 413
    assert shown.any()
    assert not (shown & inside).any()


def test_an_object_off_the_screen_has_no_selection_line(image, mask):
    assert compose(image, mask, view(), GRAY, selected=1).selection is None
    assert compose(image, mask, view(), GRAY, selected=0).selection is None


def test_without_styles_there_is_no_overlay_but_objects_can_be_picked(image, mask):
    scene = compose(image, mask, view(), GRAY, None)
    assert scene.overlay is None
    assert scene.object_at(30, 40)


def test_the_line_color_contrasts_with_the_image(mask):
    for value, ink in ((20, BRIGHT_INK), (230, DARK_INK)):
        image = TileReader(xr.DataArray(np.full((1, 300, 400), value, np.uint8), dims=("c", "y", "x")))
        assert compose(image, mask, view(), GRAY).ink == ink


@given(st.floats(1e-4, 64), st.one_of(st.none(), st.floats(1e-3, 1e3)))
def test_a_scale_bar_has_a_round_length_and_fits(scale, spacing):
    bar = scale_bar(scale, spacing)
    number, unit = bar.text.split()
    length = float(number) * {"px": 1, "µm": 1, "mm": 1000}[unit]
    assert float(f"{length:e}".split("e")[0]) == pytest.approx(round(float(f"{length:e}".split("e")[0])))
    assert bar.length == pytest.approx(length / (spacing or 1) * scale, rel=1e-6)
    assert bar.length <= 120 * 1.01


def test_a_scale_bar_shows_micrometers_only_with_spacing():
    assert scale_bar(1.0, None).text == "100 px"
    assert scale_bar(1.0, 0.65).text == "50 µm"
    assert scale_bar(0.01, 1.0).text == "10 mm"
