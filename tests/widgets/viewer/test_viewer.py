"""Viewer, tested through mouse, keys and controls; the last scene is what it shows."""

from __future__ import annotations

import numpy as np
import pytest
from ipywidgets import Button, ColorPicker, Dropdown, ToggleButton

from svetlana_jupyter.core.display.channels import DisplaySettings
from svetlana_jupyter.core.display.viewport import Viewport
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project import known_files
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.viewer.viewer import Viewer
from tests.core.display.test_overlay import displayed
from tests.widgets.conftest import STEP


@pytest.fixture
def viewer(project):
    return Viewer(project)


@pytest.fixture
def volume(tmp_path):
    """A project with a volume of ten planes; object n is in plane n alone."""
    mask = np.zeros((10, 40, 50), np.uint8)
    for plane in range(1, 10):
        mask[plane, 10:20, 10:30] = plane
    made = Project(tmp_path / "volume.svetlana", classes=["a"])
    made.add("volume", mask * 20, mask, axes="zyx", spacing=(2.0, 0.5, 0.5))
    return made


def send(viewer, event, **content):
    viewer.screen.pointer._handle_custom_msg({"event": event, **content}, [])


def click(viewer, y, x, button=0):
    row, column = viewer.model.view.to_screen(y, x)
    send(viewer, "pressed", row=row, column=column, button=button)
    send(viewer, "released", row=row, column=column, time=1.0)


def press(viewer, key, control=False, shown=()):
    send(viewer, "key_pressed", key=key, control=control, shown=list(shown))


def middle(label):
    """Return the center of an object of the squares."""
    return STEP * ((label - 1) // 6) + 8.5, STEP * ((label - 1) % 6) + 8.5


def find(viewer, kind, tooltip):
    def walk(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from walk(child)

    return next(w for w in walk(viewer) if isinstance(w, kind) and (w.tooltip or "").startswith(tooltip))


def colors(viewer, label):
    """Return the colors of an object in the overlay."""
    overlay = viewer.model.scene.overlay
    rgba = overlay.table[np.unique(overlay.codes[displayed(viewer.model.scene.raster) == label])]
    return {tuple(int(value) for value in color[:3]) for color in rgba if color[3] == 255}


def palette(viewer):
    """Return the display settings of the image on the screen."""
    return next(part for part in viewer.model.scene.image.key if isinstance(part, DisplaySettings))


def rgb(color):
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


def test_the_first_image_is_shown_completely(viewer):
    assert viewer.model.image == "left"
    assert viewer.model.view == Viewport.fitted((64, 96), viewer.model.view.size)
    assert viewer.model.scene.image.pixels.shape == (64, 96)
    assert viewer.status.text == ""


def test_a_project_without_images_shows_nothing_until_one_is_added(empty):
    viewer = Viewer(empty)
    assert (viewer.model.image, viewer.model.scene) == ("", None)
    send(viewer, "moved", row=5, column=5)
    press(viewer, "f")
    empty.add("one", np.zeros((20, 30), np.uint8), np.ones((20, 30), np.uint8), axes="yx")
    assert viewer.model.image == "one"
    assert viewer.model.scene is not None
    assert viewer.status.text == ""


@pytest.mark.parametrize("label", [1, 9, 24])
def test_a_click_selects_the_object_under_it(viewer, label):
    selected = []
    viewer.selector.on_select = lambda *event: selected.append(event)
    click(viewer, *middle(label))
    assert selected == [("left", label)]
    assert viewer.model.selected == label
    assert viewer.model.scene.selection is not None


def test_a_click_on_the_background_selects_nothing(viewer):
    selected = []
    viewer.selector.on_select = lambda *event: selected.append(event)
    viewer.model.selected = 3
    click(viewer, 1, 1)
    assert selected == [("left", 0)]
    assert viewer.model.selected == 0


def test_the_right_button_selects_the_object_of_the_menu_and_nothing_on_the_background(viewer):
    click(viewer, 1, 1, button=2)
    assert (viewer.model.selected, viewer.model.menu) == (0, None)
    click(viewer, *middle(3), button=2)
    assert (viewer.model.selected, viewer.model.menu) == (3, viewer.model.view.to_screen(*middle(3)))


def test_without_the_pointer_helper_the_events_of_the_canvas_do_the_same(viewer):
    fire = viewer.screen.canvas.widget._canvases[-1]._handle_frontend_event
    keys = []
    viewer.screen.handle_key = lambda *event: keys.append(event)
    row, column = viewer.model.view.to_screen(*middle(5))
    fire(None, {"event": "mouse_move", "x": column, "y": row}, [])
    fire(None, {"event": "mouse_down", "x": column, "y": row}, [])
    fire(None, {"event": "mouse_up", "x": column, "y": row}, [])
    assert viewer.model.selected == 5
    fire(None, {"event": "key_down", "key": "1", "shift_key": False, "ctrl_key": False, "meta_key": False}, [])
    assert keys == [("1", ("left", 5))]
    scale, point = viewer.model.view.scale, viewer.model.view.to_image(row, column)
    fire(None, {"event": "mouse_wheel", "x": 0, "y": -120}, [])
    assert viewer.model.view.scale > scale
    assert viewer.model.view.to_image(row, column) == pytest.approx(point)


def test_dragging_moves_the_image_and_selects_nothing(viewer):
    viewer.model.zoom(4)
    before = viewer.model.view
    send(viewer, "pressed", row=200, column=300, button=0)
    for step in range(1, 6):
        send(viewer, "moved", row=200 + 10 * step, column=300 - 20 * step)
    send(viewer, "released", row=250, column=200, time=1.0)
    assert viewer.model.view.to_screen(*before.to_image(200, 300)) == pytest.approx((250, 200))
    assert viewer.model.selected == 0


def test_a_small_move_during_a_click_still_selects(viewer):
    row, column = viewer.model.view.to_screen(*middle(4))
    send(viewer, "pressed", row=row, column=column, button=0)
    send(viewer, "moved", row=row + 2, column=column - 2)
    send(viewer, "released", row=row + 2, column=column - 2, time=1.0)
    assert viewer.model.selected == 4


def test_the_wheel_zooms_about_the_pointer(viewer):
    point = viewer.model.view.to_image(100, 200)
    send(viewer, "wheeled", delta=-300, row=100, column=200)
    assert viewer.model.view.scale == pytest.approx(2 * Viewport.fitted((64, 96), viewer.model.view.size).scale)
    assert viewer.model.view.to_image(100, 200) == pytest.approx(point)


def test_hovering_names_the_object_its_class_and_its_probability(trained):
    viewer = Viewer(trained)
    viewer.model.overlay = "predictions"

    def hover(label):
        row, column = viewer.model.view.to_screen(*middle(label))
        send(viewer, "moved", row=row, column=column)
        return viewer.model.scene.hint.text

    assert hover(1) == "object 1 · bright"
    predicted = trained.probabilities("left").loc[20]
    name = trained.classes.by_id(int(predicted["predicted"])).name
    assert hover(20) == f"object 20 · {name}? {predicted['probability']:.0%}"
    trained.flag("left", 20, "ambiguous")
    assert hover(20) == "object 20 · ambiguous"
    send(viewer, "pointer_left")
    assert viewer.model.scene.hint is None


def test_the_mouse_makes_the_program_look_at_each_file_at_most_once_per_second(trained, monkeypatch):
    viewer, original, looked_at = Viewer(trained), known_files.source_version, []
    viewer.model.overlay = "predictions"
    monkeypatch.setattr(known_files, "source_version", lambda files: looked_at.extend(files) or original(files))

    def move():
        looked_at.clear()
        for label in (1, 20, 3):
            row, column = viewer.model.view.to_screen(*middle(label))
            send(viewer, "moved", row=row, column=column)
            assert f"object {label}" in viewer.model.scene.hint.text
            send(viewer, "wheeled", delta=-10, row=row, column=column)
            click(viewer, *middle(label))

    monkeypatch.setattr(known_files, "LIVE_SECONDS", 60)  # instead of a second, in which a slow computer does less
    move()
    assert looked_at == []
    monkeypatch.setattr(known_files, "LIVE_SECONDS", 0)
    move()
    assert set(looked_at) == {str(trained.images.mask_file("left")), *map(str, trained.images.image_files("left"))}


def test_keys_that_move_the_view_are_handled_and_all_others_passed_on(viewer):
    keys = []
    viewer.screen.handle_key = lambda key, shown: keys.append(key)
    fitted = viewer.model.view
    for key in ("+", "ArrowLeft", "ArrowUp", "-", "PageDown", "[", "Shift"):
        press(viewer, key)
    assert viewer.model.view != fitted
    press(viewer, "f")
    assert viewer.model.view == fitted
    for key in ("1", "u", "Enter", "Escape"):
        press(viewer, key)
    press(viewer, "z", control=True)
    assert keys == ["1", "u", "Enter", "Escape", "Ctrl+z"]


def test_a_key_carries_the_object_that_was_on_the_screen_not_the_one_that_is_coming(viewer):
    heard = []

    def label_and_go_on(key, shown):
        heard.append((key, shown))
        viewer.show("left", shown[1] + 1)

    viewer.screen.handle_key = label_and_go_on
    viewer.show("left", 5)
    token = viewer.screen.pointer.shown
    press(viewer, "1", shown=token)
    press(viewer, "2", shown=token)  # typed before the browser showed object 6
    assert heard == [("1", ("left", 5)), ("2", ("left", 5))]


def test_a_key_right_after_a_click_applies_to_the_clicked_object(viewer):
    heard = []
    viewer.screen.handle_key = lambda key, shown: heard.append(shown)
    viewer.show("left", 5)
    row, column = viewer.model.view.to_screen(*viewer.project.objects("left").loc[5, ["y", "x"]] + 0.5)
    viewer.model.selected = 6
    send(viewer, "pressed", row=row, column=column, button=0)
    send(viewer, "released", row=row, column=column, time=3.0)
    send(viewer, "key_pressed", key="1", control=False, shown=None)
    assert heard == [("left", 5)]
    assert viewer.screen.pointer.click_time == 3.0, "the frame after a click accounts for it"


def test_a_key_after_a_click_never_applies_to_an_object_that_came_after_the_click(viewer):
    heard = []
    viewer.screen.handle_key = lambda key, shown: heard.append(shown)
    click(viewer, *middle(5))
    viewer.show("left", 6)  # the next object, before the page knows what the click selected
    send(viewer, "key_pressed", key="1", control=False, shown=None)
    assert heard == [("left", 5)]
    click(viewer, *middle(6))
    send(viewer, "key_pressed", key="1", control=False, shown=None)
    assert heard[1:] == [("left", 6)]


def test_the_displayed_selection_follows_the_frame(viewer):
    assert viewer.screen.pointer.shown == []
    viewer.show("right", 7)
    assert viewer.screen.pointer.shown == ["right", 7]
    viewer.show("left")
    assert viewer.screen.pointer.shown == []


def test_showing_an_object_centers_it_at_a_legible_size(viewer):
    viewer.show("right", 9)
    height, width = viewer.model.view.size
    assert (viewer.model.image, viewer.model.selected) == ("right", 9)
    assert viewer.model.scene.object_at(height / 2, width / 2, reach=0) == 9
    assert 0.15 * height < 9 * viewer.model.view.scale < 0.6 * height


@pytest.mark.parametrize("label", [1, 6, 19, 24])
def test_an_object_at_the_border_is_on_the_screen_which_stays_on_the_image(viewer, label):
    viewer.show("right", label)
    view = viewer.model.scene.view
    assert viewer.model.scene.object_at(*view.to_screen(*middle(label)), reach=0) == label
    top, left = view.to_image(0, 0)
    bottom, right = view.to_image(*view.size)
    beside = max(-top, bottom - 64) / (bottom - top), max(-left, right - 96) / (right - left)
    assert max(beside) <= 0.15 + 1e-9


def test_a_large_object_is_shown_completely(project):
    mask = np.zeros((400, 500), np.uint8)
    mask[50:200, 60:210] = 1
    for label in range(2, 5):
        mask[300:310, 40 * label : 40 * label + 10] = label
    project.add("sizes", mask * 20, mask, axes="yx")
    viewer = Viewer(project)
    viewer.show("sizes", 1)
    assert viewer.status.text == ""
    assert viewer.model.scene.view == viewer.model.view
    assert type(viewer.model.view.scale) is float
    assert 150 * viewer.model.view.scale < min(viewer.model.view.size)


def test_the_next_object_keeps_the_magnification_that_the_user_has_chosen(viewer, project):
    mask = np.zeros((64, 96), np.uint8)
    mask[2:62, 2:62] = 1
    mask[20:29, 80:89] = 2
    project.add("mixed", mask * 20, mask, axes="yx")
    viewer.show("right", 9)
    usual = viewer.model.view.scale
    viewer.model.zoom(0.8)
    chosen = viewer.model.view.scale
    viewer.show("left", 3)
    assert viewer.model.view.scale == chosen != usual
    viewer.show("mixed", 1)
    assert viewer.model.view.scale < chosen
    viewer.show("right", 4)
    assert viewer.model.view.scale == chosen
    viewer.model.fit()
    viewer.show("right", 5)
    assert viewer.model.view.scale == usual


def test_a_missing_object_is_refused_and_nothing_is_selected(viewer):
    with pytest.raises(InputError, match="left has no object 77"):
        viewer.show("left", 77)
    assert viewer.model.selected == 0


def test_another_image_has_no_selection_yet(viewer):
    viewer.show("left", 3)
    viewer.model.image = "right"
    assert viewer.model.selected == 0
    assert viewer.screen.pointer.shown == []


def test_showing_an_object_without_zooming_keeps_the_scale(viewer):
    viewer.model.zoom(3)
    scale = viewer.model.view.scale
    viewer.show("left", 2, zoom=False)
    assert viewer.model.view.scale == scale


def test_an_annotation_recolors_the_object_at_once(viewer, project):
    bright, dark = (rgb(info.color) for info in project.classes)
    project.annotate("left", 3, "bright")
    assert colors(viewer, 3) == {bright}
    project.annotate("left", 3, "dark")
    assert colors(viewer, 3) == {dark}
    project.undo()
    assert colors(viewer, 3) == {bright}
    project.classes.recolor("bright", "#123456")
    assert colors(viewer, 3) == {rgb("#123456")}


def test_predictions_are_shown_below_annotations(trained):
    viewer = Viewer(trained)
    by_id = {info.id: rgb(info.color) for info in trained.classes}
    predicted = trained.probabilities("left")["predicted"]
    assert colors(viewer, 20) != {by_id[predicted[20]]}
    viewer.model.overlay = "predictions"
    assert colors(viewer, 20) == {by_id[predicted[20]]}
    other = next(info for info in trained.classes if info.id != predicted[20])
    trained.annotate("left", 20, other.name)
    assert colors(viewer, 20) == {by_id[other.id]}


def test_erasing_the_label_of_a_test_set_object_hides_its_prediction_again(trained):
    trained.test_set.draw(40)
    image, label = next(object_id for object_id in trained.test_set.objects if object_id[0] == "left")
    trained.annotate(image, label, "bright")
    viewer = Viewer(trained)
    viewer.model.overlay = "predictions"
    assert colors(viewer, label) != set()
    plain = colors(viewer, next(other for other in trained.test_set.hidden("left")))
    trained.erase(image, label)
    assert colors(viewer, label) == plain


def test_objects_can_be_selected_without_an_overlay(viewer):
    viewer.model.overlay = "off"
    assert viewer.model.scene.overlay is None
    click(viewer, *middle(8))
    assert viewer.model.selected == 8


def test_controls_and_traits_follow_each_other(viewer, project):
    project.annotate("left", 3, "bright")
    find(viewer, Dropdown, "Source of the object colors").value = "off"
    assert viewer.model.overlay == "off"
    viewer.model.overlay = "predictions"
    assert find(viewer, Dropdown, "Source of the object colors").value == "predictions"
    find(viewer, ToggleButton, "Outlines").value = False
    assert not viewer.model.outlines
    assert colors(viewer, 3) == set()
    find(viewer, Dropdown, "Displayed image").value = "right"
    assert viewer.model.scene.image.key[0] is viewer._opened.image


def test_buttons_zoom_and_fit(viewer):
    fitted = viewer.model.view
    find(viewer, Button, "Zoom in").click()
    assert viewer.model.view.scale == pytest.approx(1.5 * fitted.scale)
    find(viewer, Button, "Show one image pixel").click()
    assert viewer.model.view.scale == 1
    find(viewer, Button, "Show the whole image").click()
    assert viewer.model.view == fitted


def test_every_button_has_a_tooltip(viewer, volume):
    def walk(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from walk(child)

    for shown in (viewer, Viewer(volume)):
        assert all(w.tooltip for w in walk(shown) if isinstance(w, Button | ToggleButton | Dropdown))


def test_a_volume_shows_the_plane_of_its_slider(volume):
    viewer = Viewer(volume)
    assert viewer.model.plane == 5
    assert viewer.model.scene.scale_bar.text.endswith("µm")
    click(viewer, 15, 20)
    assert viewer.model.selected == 5
    press(viewer, "PageDown")
    press(viewer, "]")
    press(viewer, "PageUp")
    assert viewer.toolbar.plane.value == viewer.model.plane == 6
    viewer.toolbar.plane.value = 3
    click(viewer, 15, 20)
    assert viewer.model.selected == 3
    viewer.model.plane = 99
    assert viewer.model.plane == 9
    viewer.show("volume", 2)
    assert viewer.model.plane == 2


def test_an_image_without_planes_has_no_plane_slider(viewer, volume):
    assert viewer.toolbar.plane.layout.display == "none"
    assert Viewer(volume).toolbar.plane.layout.display != "none"


def test_channels_can_be_switched_and_their_contrast_changed(project):
    values = np.zeros((2, 30, 40), np.uint16)
    values[0, :, :20], values[1, :, 20:] = 1000, 2000
    project.add("cells", values, np.ones((30, 40), np.uint8), axes="cyx", channels=["dna", "actin"])
    viewer = Viewer(project)
    viewer.show("cells")
    pixels = viewer.model.scene.image.pixels
    assert pixels[5, 5].tolist() == [0, 255, 0]
    assert pixels[5, 30].tolist() == [255, 0, 255]
    find(viewer, ToggleButton, "Show dna").value = False
    assert viewer.model.scene.image.pixels[5, 5].tolist() == [0, 0, 0]
    actin = viewer.toolbar.channels.children[1]
    actin.window.max = 4000
    actin.window.value = (0, 4000)
    assert actin.clipping.value == "manual"
    assert viewer.model.scene.image.pixels[5, 30].tolist() == [128, 0, 128]
    actin.clipping.value = "0.2 %"
    assert viewer.model.scene.image.pixels[5, 30].tolist() == [255, 0, 255]


def test_manual_contrast_applies_to_other_images_until_it_is_automatic_again(viewer):
    slider = viewer.toolbar.channels.children[0].window
    window = slider.value
    slider.value = (10, 90)
    viewer.show("right")
    assert palette(viewer).channels[0].contrast_limits == (10, 90)
    viewer.show("left")
    viewer.toolbar.channels.children[0].clipping.value = "0.2 %"
    assert palette(viewer).channels[0].contrast_limits == window
    viewer.show("right")
    assert palette(viewer).channels[0].contrast_limits != (10, 90)


def test_percentile_contrast_gamma_and_channel_color_change_the_image(project):
    values = np.stack([np.tile(np.arange(1000, dtype=np.float32), (30, 1)), np.zeros((30, 1000), np.float32)])
    project.add("cells", values, np.ones((30, 1000), np.uint8), axes="cyx", channels=["dna", "actin"])
    viewer = Viewer(project)
    viewer.show("cells")
    dna = viewer.toolbar.channels.children[0]
    assert (dna.clipping.value, dna.gamma.value) == ("0.2 %", 1.0)
    dna.clipping.value = "5 %"
    assert dna.window.value == pytest.approx((50, 949), abs=2)
    dna.clipping.value = "all values"
    assert viewer.model.scene.image.pixels[0, 250].tolist() == [0, 64, 0]
    dna.gamma.value = 2.0
    assert viewer.model.scene.image.pixels[0, 250].tolist() == [0, 128, 0]
    find(viewer, ColorPicker, "Color of dna").value = "#ff0000"
    assert viewer.model.scene.image.pixels[0, 250].tolist() == [128, 0, 0]


def test_an_rgb_image_is_shown_as_stored_until_its_contrast_is_changed(project):
    colors = np.random.default_rng(0).integers(40, 200, (30, 40, 3), np.uint8)
    project.add("smear", colors, np.ones((30, 40), np.uint8), axes="yxs")
    viewer = Viewer(project)
    viewer.show("smear")
    np.testing.assert_array_equal(viewer.model.scene.image.pixels, colors)
    (row,) = viewer.toolbar.channels.children
    assert row.clipping.value == "as stored"
    row.window.value = (40, 200)
    assert viewer.model.scene.image.pixels.max() == round(255 * 159 / 160)
    row.clipping.value = "as stored"
    np.testing.assert_array_equal(viewer.model.scene.image.pixels, colors)


def test_an_image_with_a_missing_file_is_reported_and_the_others_still_work(project, tmp_path):
    import tifffile

    for name, values in (("gone", np.zeros((40, 50), np.uint8)), ("mask", np.ones((40, 50), np.uint8))):
        tifffile.imwrite(tmp_path / f"{name}.tif", values)
    project.add("gone", tmp_path / "gone.tif", tmp_path / "mask.tif", axes="yx")
    viewer = Viewer(project)
    (tmp_path / "gone.tif").unlink()
    viewer.show("gone", 1)
    assert viewer.model.selected == 0
    assert "gone.tif does not exist" in viewer.status.text
    assert viewer.status.layout.display != "none"
    assert viewer.model.scene is None
    click(viewer, 5, 5)
    press(viewer, "+")
    viewer.show("left", 3)
    assert viewer.status.text == ""
    assert viewer.model.scene.object_at(*viewer.model.view.to_screen(*middle(3))) == 3


def test_an_unreadable_block_is_reported_and_leaves_the_viewer_usable(viewer, project):
    broken = viewer._opened.image._decode

    def fail(*where):
        raise OSError("block 7 is damaged")

    viewer.memory_mb = 0
    viewer._opened.image._decode = fail
    viewer.model.zoom(5)
    assert "left cannot be shown (block 7 is damaged)" in viewer.status.text
    project.annotate("left", 3, "bright")
    assert project.annotations.label_of("left", 3).action == "label"
    viewer._opened.image._decode = broken
    viewer.model.fit()
    assert viewer.status.text == ""
    assert viewer.model.scene.view == viewer.model.view


def test_an_exception_in_a_key_callback_is_displayed(viewer):
    viewer.screen.handle_key = lambda key, shown: 1 / 0
    press(viewer, "1")
    assert "ZeroDivisionError" in viewer.status.text
    click(viewer, *middle(2))
    assert viewer.model.selected == 2


def test_a_high_resolution_screen_is_drawn_in_its_own_pixels(viewer):
    viewer.screen.pointer.dpr = 2.0
    assert viewer.model.scene.view.device_size == tuple(2 * n for n in viewer.model.view.size)
    click(viewer, *middle(10))
    assert viewer.model.selected == 10


def test_the_image_area_follows_the_width_of_the_page_up_to_its_maximum(project):
    viewer = Viewer(project, (540, 648), max_size=(600, 1280))
    pointer, model = viewer.screen.pointer, viewer.model
    for width, size in ((500, (417, 500)), (648, (540, 648)), (1100, (600, 1100)), (2000, (600, 1280))):
        pointer.width = width
        assert model.scene.view.size == size
        assert model.view == model.fitted_view(model.shape), "the whole image stays visible"
        assert viewer.screen.canvas.widget.layout.width == f"{size[1]}px"
    model.zoom(3.0)
    center, scale = model.view.center, model.view.scale
    pointer.width = 500
    assert (model.view.center, model.view.scale, model.view.size) == (center, scale, (417, 500))


@pytest.mark.parametrize("width", [-5, 0, 1, 100])
def test_a_page_of_absurd_size_or_resolution_leaves_an_image_that_can_be_drawn(project, width):
    viewer = Viewer(project, (540, 648), max_size=(600, 1280))
    pointer = viewer.screen.pointer
    pointer.width = 500
    pointer.set_state({"width": width})
    assert viewer.model.scene.view.size == (83, 100)
    for reported, used in ((0.0, 0.25), (float("nan"), 0.25), (-1.0, 0.25), (1e9, 16.0)):
        pointer.set_state({"dpr": reported})
        assert viewer.model.scene.view.device_size == (round(83 * used), round(100 * used))
    assert viewer.status.text == ""


def test_a_closed_viewer_no_longer_observes_the_project(viewer, project):
    scene = viewer.model.scene
    viewer.close()
    project.annotate("left", 3, "bright")
    assert viewer.model.scene is scene
