"""Canvas, tested by what a page would show of its messages; each trap of ipycanvas has a test."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from ipycanvas import Canvas, hold_canvas

from svetlana_jupyter.core.display.channels import ChannelDisplay, DisplaySettings, render_pixels
from svetlana_jupyter.core.display.overlay import ObjectStyle, ObjectStyles
from svetlana_jupyter.core.display.scene import Hint, compose
from svetlana_jupyter.core.display.tiles import TileReader
from svetlana_jupyter.core.display.viewport import Viewport
from svetlana_jupyter.widgets.viewer.canvas import IMAGE, OVERLAY, SELECTION, ImageCanvas, check_decodable
from tests.widgets.page import _FROM_JSON, Page, listen

GRAY = DisplaySettings((ChannelDisplay("gray", "#ffffff", (0, 255)),))
RED = ObjectStyles(key="red", styles=(ObjectStyle("#ff0000", bold=True, fill=1.0),))
SIZE = (120, 160)
JPEG, PNG = b"\xff\xd8", b"\x89PNG"


@pytest.fixture
def pages(monkeypatch):
    return listen(monkeypatch)


@pytest.fixture
def page(pages):
    pages.append(Page())
    return pages[0]


@pytest.fixture
def surface():
    return ImageCanvas(SIZE)


@pytest.fixture
def pair():
    y, x = np.mgrid[:300, :400]
    labels = 1 + (y // 20) * 20 + x // 20
    labels[(y % 20 > 13) | (x % 20 > 13)] = 0
    pixels = np.random.default_rng(0).integers(0, 120, (1, 300, 400), np.uint8)
    return TileReader(xr.DataArray(pixels, dims=("c", "y", "x"))), TileReader(xr.DataArray(labels, dims=("y", "x")))


@pytest.fixture
def scene(pair):
    return compose(*pair, Viewport((150.0, 200.0), 2.0, SIZE), GRAY, RED, selected=151)


def layer(surface, page, number):
    """Return the visible part of an off-screen canvas, which the last message copied to the screen."""
    copies = [arguments for canvas, name, arguments in page.messages[-1] if name == "drawImage"]
    source, x, y = copies[number]
    height, width = surface.widget.height, surface.widget.width
    return page.pixels(_FROM_JSON(source, None))[-y : height - y, -x : width - x]


def screen(surface, page):
    return page.pixels(surface.widget[0])


def test_the_last_command_of_each_frame_is_its_number(surface, page, scene):
    for number in (1, 2):
        surface.paint(scene)
        canvas, name, arguments = page.messages[-1][-1]
        assert (canvas, name) == (surface.counter.model_id, "set")
        assert arguments == [Canvas.ATTRS["line_dash_offset"], number] == [12, surface.frame]


def expected_image(scene, pair):
    """Return the image as the screen should show it, pixel by pixel."""
    height, width = scene.view.device_size
    rows = np.arange(height)[:, None] - scene.offset[0] + 0.5
    columns = np.arange(width)[None] - scene.offset[1] + 0.5
    y = np.floor(scene.frame.origin[0] + rows / scene.frame.scale).astype(int)
    x = np.floor(scene.frame.origin[1] + columns / scene.frame.scale).astype(int)
    return render_pixels(pair[0].array.values, GRAY)[y, x]


def test_a_painted_scene_shows_the_pixels_of_the_image(surface, page, scene, pair):
    surface.paint(scene)
    np.testing.assert_array_equal(layer(surface, page, IMAGE)[..., 0], expected_image(scene, pair))
    assert (layer(surface, page, IMAGE)[..., 3] == 255).all()


@pytest.mark.parametrize("dpr", [1.0, 2.0])
def test_outlines_and_image_lie_exactly_on_each_other(surface, page, pair, dpr):
    image = TileReader(xr.DataArray((pair[1].array.values[None] > 0).astype(np.uint8) * 100, dims=("c", "y", "x")))
    scene = compose(image, pair[1], Viewport((150.0, 200.0), 3.0, SIZE, dpr), GRAY, RED)
    surface.paint(scene)
    objects = layer(surface, page, IMAGE)[..., 0] > 50
    marked = layer(surface, page, OVERLAY)[..., 3] > 0
    np.testing.assert_array_equal(objects, marked)


def test_dragging_moves_the_image_without_sending_pixels(surface, page, scene, pair):
    begun = compose(*pair, scene.view.panned(1, 1), GRAY, RED, selected=151, previous=scene, moving=True)
    surface.paint(begun)
    sent = len(page.pictures)
    moved = compose(*pair, scene.view.panned(9, -7), GRAY, RED, selected=151, previous=begun)
    surface.paint(moved)
    assert len(page.pictures) == sent
    np.testing.assert_array_equal(layer(surface, page, IMAGE)[..., 0], expected_image(moved, pair))


def test_recoloring_sends_only_the_overlay(surface, page, scene, pair):
    surface.paint(scene)
    sent = len(page.pictures)
    blue = ObjectStyles(key="blue", styles=(ObjectStyle("#0000ff", fill=1.0),))
    surface.paint(compose(*pair, scene.view, GRAY, blue, selected=151, previous=scene))
    assert len(page.pictures) == sent + 1
    shown = layer(surface, page, OVERLAY)
    assert (shown[shown[..., 3] > 0][:, :3] == (0, 0, 255)).all()


@pytest.fixture
def following(pair):
    """The scene of another object, far from the first."""
    return compose(*pair, Viewport((60.0, 90.0), 2.0, SIZE), GRAY, RED, selected=45)


def test_a_prepared_scene_is_painted_without_sending_a_picture(surface, page, scene, following, pair):
    surface.paint(scene)
    before = screen(surface, page).copy()
    surface.prepare(following)
    np.testing.assert_array_equal(screen(surface, page), before)
    sent = len(page.pictures)
    surface.paint(following)
    assert len(page.pictures) == sent
    np.testing.assert_array_equal(layer(surface, page, IMAGE)[..., 0], expected_image(following, pair))
    assert layer(surface, page, SELECTION).any()
    surface.paint(scene)
    assert len(page.pictures) == sent, "the scene before is still there, too"
    np.testing.assert_array_equal(screen(surface, page), before)


def test_a_prepared_scene_with_another_overlay_is_painted_with_that_overlay(surface, page, scene, following, pair):
    surface.paint(scene)
    surface.prepare(following)
    sent = len(page.pictures)
    blue = ObjectStyles(key="blue", styles=(ObjectStyle("#0000ff", fill=1.0),))
    surface.paint(compose(*pair, following.view, GRAY, blue, selected=45, previous=following))
    assert len(page.pictures) == sent + 1
    shown = layer(surface, page, OVERLAY)
    assert (shown[shown[..., 3] > 0][:, :3] == (0, 0, 255)).all()


def test_a_scene_that_fails_while_being_prepared_is_painted_completely(
    surface, page, scene, following, pair, monkeypatch
):
    surface.paint(scene)
    with monkeypatch.context() as broken, pytest.raises(ZeroDivisionError):
        broken.setattr("svetlana_jupyter.core.display.encode.indexed_png", lambda *_: 1 / 0)
        surface.prepare(following)
    surface.paint(following)
    np.testing.assert_array_equal(layer(surface, page, IMAGE)[..., 0], expected_image(following, pair))
    assert layer(surface, page, OVERLAY).any()


def test_the_screen_shows_image_overlay_and_selection_on_each_other(surface, page, scene):
    surface.paint(replace(scene, scale_bar=replace(scene.scale_bar, length=0.0)))
    expected = layer(surface, page, IMAGE).copy()
    for number in (OVERLAY, SELECTION):
        above = layer(surface, page, number)
        expected[above[..., 3] > 0] = above[above[..., 3] > 0]
    shown = screen(surface, page)
    height = SIZE[0] - 40  # the scale bar lies below
    np.testing.assert_array_equal(shown[:height], expected[:height])


def test_each_message_draws_the_screen_once(surface, page, scene, following):
    # The page copies the canvas on which a message begins, and each canvas to which it switches.
    surface.paint(scene)
    surface.prepare(following)
    surface.paint(following)
    visible, begun = surface.widget[0].model_id, ""
    for message, times in zip(page.messages, (1, 0, 1), strict=True):
        canvases = [begun, *(canvas for canvas, _, _ in message)]
        switches = [second for first, second in itertools.pairwise(canvases) if first != second]
        assert (canvases[0] == visible) + switches.count(visible) == times
        begun = canvases[-1]


def test_a_scene_is_painted_unless_the_screen_shows_it_already(surface, scene, pair):
    assert not surface.is_painted(scene, lossless=True)
    surface.paint(scene, lossless=True)
    assert surface.is_painted(scene, lossless=True)
    assert surface.is_painted(compose(*pair, scene.view, GRAY, RED, selected=151), lossless=True)
    blue = ObjectStyles(key="blue", styles=(ObjectStyle("#0000ff", fill=1.0),))
    for changed in (
        replace(scene, hint=Hint("17", (20.0, 30.0))),
        compose(*pair, scene.view.panned(3, 0), GRAY, RED, selected=151, previous=scene),
        compose(*pair, scene.view, GRAY, RED, selected=152, previous=scene),
        compose(*pair, scene.view, GRAY, blue, selected=151, previous=scene),
    ):
        assert not surface.is_painted(changed, lossless=True)
    surface.widget._canvases[-1]._handle_frontend_event(None, {"event": "client_ready"}, [])
    assert not surface.is_painted(scene, lossless=True), "the page was reloaded"


def test_a_hint_redraws_only_the_decoration(surface, page, scene, pair):
    surface.paint(scene)
    surface.paint(replace(scene, hint=Hint("17", (20.0, 30.0))))
    canvases = {canvas for canvas, _, _ in page.messages[-1]}
    assert canvases == {surface.widget[0].model_id, surface.counter.model_id}
    assert any(name == "fillText" and arguments[0] == "17" for _, name, arguments in page.messages[-1])


def test_without_a_selection_its_layer_is_empty(surface, page, scene, pair):
    surface.paint(scene)
    assert layer(surface, page, SELECTION).any()
    surface.paint(compose(*pair, scene.view, GRAY, RED, previous=scene))
    assert not layer(surface, page, SELECTION).any()


def test_a_large_image_is_sent_as_jpeg_while_moving_and_as_png_when_still(surface, page):
    values = np.random.default_rng(0).integers(0, 120, (1, 900, 1200), np.uint8)
    labels = np.zeros((900, 1200), int)
    pair = TileReader(xr.DataArray(values, dims=("c", "y", "x"))), TileReader(xr.DataArray(labels, dims=("y", "x")))
    surface = ImageCanvas((600, 800))
    scene = compose(*pair, Viewport((450.0, 600.0), 1.0, (600, 800)), GRAY)
    surface.paint(scene)
    assert [picture[:2] for picture in page.pictures] == [JPEG]
    assert not surface.is_final
    surface.paint(scene, lossless=True)
    surface.paint(scene, lossless=True)
    assert [picture[:4] for picture in page.pictures if picture[:2] != JPEG] == [PNG]
    assert surface.is_final
    np.testing.assert_array_equal(layer(surface, page, IMAGE)[..., 0], expected_image(scene, pair))


def test_ipycanvas_never_encodes_pixels(surface, page, scene, monkeypatch):
    monkeypatch.setattr(Canvas, "put_image_data", None)
    surface.paint(scene)
    assert {picture[:4] for picture in page.pictures} == {PNG}


def test_after_an_exception_while_drawing_all_canvases_still_draw(surface, page, scene, monkeypatch):
    other = Canvas(width=10, height=10)
    with monkeypatch.context() as broken, pytest.raises(ZeroDivisionError):
        broken.setattr("svetlana_jupyter.core.display.encode.indexed_png", lambda *_: 1 / 0)
        surface.paint(scene)
    assert page.messages == []
    other.fill_rect(1, 1, 2, 2)
    assert page.messages[-1][-1][1] == "fillRect"
    surface.paint(scene)
    assert layer(surface, page, OVERLAY).any()


def test_inside_the_users_own_hold_canvas_everything_is_sent_at_its_end(surface, page, scene):
    with hold_canvas():
        surface.paint(scene)
        assert page.messages == []
    assert layer(surface, page, OVERLAY).any()


def test_an_incomplete_image_is_never_sent():
    for picture in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a"):
        with pytest.raises(ValueError, match="complete PNG or JPEG"):
            check_decodable(picture)


def test_a_page_opened_later_shows_everything(pages, scene, pair):
    surface = ImageCanvas(SIZE)
    surface.repaint = lambda: surface.paint(scene)
    pages.append(Page())
    surface.paint(scene)
    pages[:] = [Page()]  # reloaded: it knows nothing of what was sent before
    surface.widget._canvases[-1]._handle_frontend_event(None, {"event": "client_ready"}, [])
    np.testing.assert_array_equal(layer(surface, pages[0], IMAGE)[..., 0], expected_image(scene, pair))
    assert layer(surface, pages[0], OVERLAY).any()
    assert layer(surface, pages[0], SELECTION).any()


def test_every_message_names_its_first_canvas_so_that_any_page_can_follow(surface, pages, scene):
    surface.paint(scene)
    pages.append(Page())
    surface.paint(replace(scene, hint=Hint("17", (20.0, 30.0))))  # a page that was not told raises


def test_each_paint_ends_on_another_canvas_than_a_full_repaint_begins_on(surface, page, scene):
    surface.paint(scene)
    first = page.messages[0][0][0]
    surface.paint(replace(scene, hint=Hint("17", (20.0, 30.0))))
    assert all(message[-1][0] != first for message in page.messages)


def test_a_high_resolution_screen_gets_its_own_pixels_while_the_layout_stays(surface, page, pair):
    scene = compose(*pair, Viewport((150.0, 200.0), 2.0, SIZE, dpr=2.0), GRAY, RED)
    surface.paint(scene)
    assert (surface.widget.height, surface.widget.width) == (240, 320)
    assert surface.widget.layout.width == "160px"
    np.testing.assert_array_equal(layer(surface, page, IMAGE)[..., 0], expected_image(scene, pair))


def test_after_a_resize_the_still_image_is_sent_once_more(surface, page, scene, pair):
    surface.paint(scene, lossless=True)
    sharp = compose(*pair, replace(scene.view, dpr=2.0), GRAY, RED)
    surface.paint(sharp)
    assert not surface.is_final
    for canvas in (*surface._buffers, *surface.widget._canvases):
        page.pixels(canvas)[:] = 0  # the browser resized, and so cleared, a canvas only now
    surface.paint(sharp, lossless=True)
    assert surface.is_final
    assert layer(surface, page, OVERLAY).any()


def test_a_cleared_canvas_shows_nothing_and_can_be_painted_again(surface, page, scene):
    surface.paint(scene)
    surface.clear()
    assert not screen(surface, page).any()
    surface.paint(scene)
    assert layer(surface, page, OVERLAY).any()


def test_events_of_the_canvas_arrive_in_css_pixels_as_row_and_column(surface, page, pair):
    heard = []

    class InputListener:
        def __getattr__(self, name):
            return lambda *arguments: heard.append((name, *arguments))

    surface.paint(compose(*pair, Viewport((150.0, 200.0), 2.0, SIZE, dpr=2.0), GRAY))
    surface.add_listener(InputListener())
    surface.shown = ("image", 7)
    fire = surface.widget._canvases[-1]._handle_frontend_event
    for event in ("mouse_move", "mouse_down", "mouse_up"):
        fire(None, {"event": event, "x": 20, "y": 10}, [])
    fire(None, {"event": "mouse_out", "x": 0, "y": 0}, [])
    fire(None, {"event": "mouse_wheel", "x": 1, "y": 120}, [])
    for ctrl in (False, True):
        fire(None, {"event": "key_down", "key": "z", "shift_key": False, "ctrl_key": ctrl, "meta_key": False}, [])
    assert heard == [
        ("moved", 5, 10),
        ("pressed", 5, 10),
        ("released", 5, 10),
        ("pointer_left",),
        ("wheeled", 120),
        ("key_pressed", "z", ("image", 7)),
        ("key_pressed", "Ctrl+z", ("image", 7)),
    ]
