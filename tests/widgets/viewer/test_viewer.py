"""The viewer, through its mouse, its keys and its controls; what it shows is the last scene."""

from __future__ import annotations

import numpy as np
import pytest
from ipywidgets import Button, ColorPicker, Dropdown, ToggleButton

from svetlana_jupyter.core.display.channels import DisplaySettings
from svetlana_jupyter.core.display.viewport import Viewport
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.viewer.viewer import Viewer
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
    viewer._pointer._handle_custom_msg({"event": event, **content}, [])


def click(viewer, y, x, button=0):
    row, column = viewer.view.to_screen(y, x)
    send(viewer, "pressed", row=row, column=column, button=button)
    send(viewer, "released", row=row, column=column, time=1.0)


def press(viewer, key, control=False, shown=()):
    send(viewer, "key_pressed", key=key, control=control, shown=list(shown))


def middle(label):
    """The middle of an object of the squares."""
    return STEP * ((label - 1) // 6) + 8.5, STEP * ((label - 1) % 6) + 8.5


def find(viewer, kind, tooltip):
    def walk(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from walk(child)

    return next(w for w in walk(viewer) if isinstance(w, kind) and (w.tooltip or "").startswith(tooltip))


def colors(viewer, label):
    """The colours that the overlay gives an object."""
    overlay = viewer.scene.overlay
    rgba = overlay.table[np.unique(overlay.codes[viewer.scene.raster.where(label)])]
    return {tuple(int(value) for value in color[:3]) for color in rgba if color[3] == 255}


def palette(viewer):
    """How the picture on the screen was coloured."""
    return next(part for part in viewer.scene.image.key if isinstance(part, DisplaySettings))


def rgb(color):
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


def test_the_first_image_is_shown_as_a_whole(viewer):
    assert viewer.image == "left"
    assert viewer.view == Viewport.fitted((64, 96), viewer.view.size)
    assert viewer.scene.image.pixels.shape == (64, 96)
    assert viewer.status.text == ""


def test_a_project_without_images_shows_nothing_until_one_is_added(empty):
    viewer = Viewer(empty)
    assert (viewer.image, viewer.scene) == ("", None)
    send(viewer, "moved", row=5, column=5)
    press(viewer, "f")
    empty.add("one", np.zeros((20, 30), np.uint8), np.ones((20, 30), np.uint8), axes="yx")
    assert viewer.image == "one"
    assert viewer.scene is not None
    assert viewer.status.text == ""


@pytest.mark.parametrize("label", [1, 9, 24])
def test_a_click_picks_the_object_under_it(viewer, label):
    picked = []
    viewer.on_select(lambda *what: picked.append(what))
    click(viewer, *middle(label))
    assert picked == [("left", label)]
    assert viewer.selected == label
    assert viewer.scene.selection is not None


def test_a_click_on_the_background_picks_nothing(viewer):
    picked = []
    viewer.on_select(lambda *what: picked.append(what))
    viewer.selected = 3
    click(viewer, 1, 1)
    assert picked == [("left", 0)]
    assert viewer.selected == 0


def test_the_right_button_picks_the_object_for_a_menu_and_nothing_on_the_background(viewer):
    click(viewer, 1, 1, button=2)
    assert (viewer.selected, viewer.menu) == (0, None)
    click(viewer, *middle(3), button=2)
    assert (viewer.selected, viewer.menu) == (3, viewer.view.to_screen(*middle(3)))


def test_without_the_helper_the_events_of_the_canvas_do_the_same(viewer):
    fire = viewer._surface.widget._canvases[-1]._handle_frontend_event
    keys = []
    viewer.on_key(lambda *what: keys.append(what))
    row, column = viewer.view.to_screen(*middle(5))
    fire(None, {"event": "mouse_move", "x": column, "y": row}, [])
    fire(None, {"event": "mouse_down", "x": column, "y": row}, [])
    fire(None, {"event": "mouse_up", "x": column, "y": row}, [])
    assert viewer.selected == 5
    fire(None, {"event": "key_down", "key": "1", "shift_key": False, "ctrl_key": False, "meta_key": False}, [])
    assert keys == [("1", ("left", 5))]
    scale, point = viewer.view.scale, viewer.view.to_image(row, column)
    fire(None, {"event": "mouse_wheel", "x": 0, "y": -120}, [])
    assert viewer.view.scale > scale
    assert viewer.view.to_image(row, column) == pytest.approx(point)


def test_dragging_moves_the_image_and_picks_nothing(viewer):
    viewer.zoom(4)
    before = viewer.view
    send(viewer, "pressed", row=200, column=300, button=0)
    for step in range(1, 6):
        send(viewer, "moved", row=200 + 10 * step, column=300 - 20 * step)
    send(viewer, "released", row=250, column=200, time=1.0)
    assert viewer.view.to_screen(*before.to_image(200, 300)) == pytest.approx((250, 200))
    assert viewer.selected == 0


def test_a_trembling_hand_still_clicks(viewer):
    row, column = viewer.view.to_screen(*middle(4))
    send(viewer, "pressed", row=row, column=column, button=0)
    send(viewer, "moved", row=row + 2, column=column - 2)
    send(viewer, "released", row=row + 2, column=column - 2, time=1.0)
    assert viewer.selected == 4


def test_the_wheel_zooms_about_the_pointer(viewer):
    point = viewer.view.to_image(100, 200)
    send(viewer, "wheeled", delta=-300, row=100, column=200)
    assert viewer.view.scale == pytest.approx(2 * Viewport.fitted((64, 96), viewer.view.size).scale)
    assert viewer.view.to_image(100, 200) == pytest.approx(point)


def test_hovering_names_the_object_its_class_and_its_probability(trained):
    viewer = Viewer(trained)
    viewer.overlay = "predictions"

    def hover(label):
        row, column = viewer.view.to_screen(*middle(label))
        send(viewer, "moved", row=row, column=column)
        return viewer.scene.hint.text

    assert hover(1) == "object 1 · bright"
    predicted = trained.probabilities("left").loc[20]
    name = trained.classes.by_id(int(predicted["predicted"])).name
    assert hover(20) == f"object 20 · {name}? {predicted['probability']:.0%}"
    trained.flag("left", 20, "ambiguous")
    assert hover(20) == "object 20 · ambiguous"
    send(viewer, "left")
    assert viewer.scene.hint is None


def test_keys_that_move_the_view_are_kept_and_all_others_passed_on(viewer):
    keys = []
    viewer.on_key(lambda key, shown: keys.append(key))
    fitted = viewer.view
    for key in ("+", "ArrowLeft", "ArrowUp", "-", "PageDown", "[", "Shift"):
        press(viewer, key)
    assert viewer.view != fitted
    press(viewer, "f")
    assert viewer.view == fitted
    for key in ("1", "u", "Enter", "Escape"):
        press(viewer, key)
    press(viewer, "z", control=True)
    assert keys == ["1", "u", "Enter", "Escape", "Ctrl+z"]


def test_a_key_carries_the_object_that_was_on_the_screen_not_the_one_that_is_coming(viewer):
    heard = []

    def label_and_go_on(key, shown):
        heard.append((key, shown))
        viewer.show("left", shown[1] + 1)

    viewer.on_key(label_and_go_on)
    viewer.show("left", 5)
    token = viewer._pointer.shown
    press(viewer, "1", shown=token)
    press(viewer, "2", shown=token)  # typed before the browser showed object 6
    assert heard == [("1", ("left", 5)), ("2", ("left", 5))]


def test_a_key_right_behind_a_click_means_the_object_clicked(viewer):
    heard = []
    viewer.on_key(lambda key, shown: heard.append(shown))
    viewer.show("left", 5)
    row, column = viewer.view.to_screen(*viewer.project.objects("left").loc[5, ["y", "x"]] + 0.5)
    viewer.selected = 6
    send(viewer, "pressed", row=row, column=column, button=0)
    send(viewer, "released", row=row, column=column, time=3.0)
    send(viewer, "key_pressed", key="1", control=False, shown=None)
    assert heard == [("left", 5)]
    assert viewer._pointer.answered == 3.0, "the frame behind a click knows of it"


def test_the_token_of_the_screen_follows_the_frame(viewer):
    assert viewer._pointer.shown == []
    viewer.show("right", 7)
    assert viewer._pointer.shown == ["right", 7]
    viewer.show("left")
    assert viewer._pointer.shown == []


def test_showing_an_object_brings_it_to_the_middle_well_visible(viewer):
    viewer.show("right", 9)
    height, width = viewer.view.size
    assert (viewer.image, viewer.selected) == ("right", 9)
    assert viewer.scene.object_at(height / 2, width / 2, reach=0) == 9
    assert 0.15 * height < 9 * viewer.view.scale < 0.6 * height


@pytest.mark.parametrize("label", [1, 6, 19, 24])
def test_an_object_at_the_border_is_on_the_screen_which_stays_on_the_image(viewer, label):
    viewer.show("right", label)
    view = viewer.scene.view
    assert viewer.scene.object_at(*view.to_screen(*middle(label)), reach=0) == label
    top, left = view.to_image(0, 0)
    bottom, right = view.to_image(*view.size)
    beside = max(-top, bottom - 64) / (bottom - top), max(-left, right - 96) / (right - left)
    assert max(beside) <= 0.15 + 1e-9


def test_an_object_larger_than_usual_is_shown_whole(project):
    mask = np.zeros((400, 500), np.uint8)
    mask[50:200, 60:210] = 1
    for label in range(2, 5):
        mask[300:310, 40 * label : 40 * label + 10] = label
    project.add("sizes", mask * 20, mask, axes="yx")
    viewer = Viewer(project)
    viewer.show("sizes", 1)
    assert viewer.status.text == ""
    assert viewer.scene.view == viewer.view
    assert type(viewer.view.scale) is float
    assert 150 * viewer.view.scale < min(viewer.view.size)


def test_an_object_that_is_not_there_is_refused_and_nothing_is_selected(viewer):
    with pytest.raises(InputError, match="left has no object 77; it has 24 objects"):
        viewer.show("left", 77)
    assert viewer.selected == 0


def test_another_image_has_no_selection_yet(viewer):
    viewer.show("left", 3)
    viewer.image = "right"
    assert viewer.selected == 0
    assert viewer._pointer.shown == []


def test_showing_an_object_without_zooming_keeps_the_scale(viewer):
    viewer.zoom(3)
    scale = viewer.view.scale
    viewer.show("left", 2, zoom=False)
    assert viewer.view.scale == scale


def test_an_annotation_recolours_the_object_at_once(viewer, project):
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
    viewer.overlay = "predictions"
    assert colors(viewer, 20) == {by_id[predicted[20]]}
    other = next(info for info in trained.classes if info.id != predicted[20])
    trained.annotate("left", 20, other.name)
    assert colors(viewer, 20) == {by_id[other.id]}


def test_the_overlay_can_be_switched_off_and_objects_can_still_be_picked(viewer):
    viewer.overlay = "off"
    assert viewer.scene.overlay is None
    click(viewer, *middle(8))
    assert viewer.selected == 8


def test_controls_and_traits_follow_each_other(viewer, project):
    project.annotate("left", 3, "bright")
    find(viewer, Dropdown, "What the objects").value = "off"
    assert viewer.overlay == "off"
    viewer.overlay = "predictions"
    assert find(viewer, Dropdown, "What the objects").value == "predictions"
    find(viewer, ToggleButton, "Outlines").value = False
    assert not viewer.outlines
    assert colors(viewer, 3) == set()
    find(viewer, Dropdown, "The image").value = "right"
    assert viewer.scene.image.key[0] is viewer._opened.image


def test_buttons_zoom_and_fit(viewer):
    fitted = viewer.view
    find(viewer, Button, "Larger").click()
    assert viewer.view.scale == pytest.approx(1.5 * fitted.scale)
    find(viewer, Button, "One image pixel").click()
    assert viewer.view.scale == 1
    find(viewer, Button, "The whole image").click()
    assert viewer.view == fitted


def test_every_button_says_what_it_does(viewer, volume):
    def walk(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from walk(child)

    for shown in (viewer, Viewer(volume)):
        assert all(w.tooltip for w in walk(shown) if isinstance(w, Button | ToggleButton | Dropdown))


def test_a_volume_shows_the_plane_of_its_slider(volume):
    viewer = Viewer(volume)
    assert viewer.plane == 5
    assert viewer.scene.scale_bar.text.endswith("µm")
    click(viewer, 15, 20)
    assert viewer.selected == 5
    press(viewer, "PageDown")
    press(viewer, "]")
    press(viewer, "PageUp")
    assert viewer._toolbar.plane.value == viewer.plane == 6
    viewer._toolbar.plane.value = 3
    click(viewer, 15, 20)
    assert viewer.selected == 3
    viewer.plane = 99
    assert viewer.plane == 9
    viewer.show("volume", 2)
    assert viewer.plane == 2


def test_an_image_without_planes_has_no_plane_slider(viewer, volume):
    assert viewer._toolbar.plane.layout.display == "none"
    assert Viewer(volume)._toolbar.plane.layout.display != "none"


def test_channels_can_be_switched_and_their_contrast_changed(project):
    values = np.zeros((2, 30, 40), np.uint16)
    values[0, :, :20], values[1, :, 20:] = 1000, 2000
    project.add("cells", values, np.ones((30, 40), np.uint8), axes="cyx", channels=["dna", "actin"])
    viewer = Viewer(project)
    viewer.show("cells")
    pixels = viewer.scene.image.pixels
    assert pixels[5, 5].tolist() == [0, 255, 0]
    assert pixels[5, 30].tolist() == [255, 0, 255]
    find(viewer, ToggleButton, "Show dna").value = False
    assert viewer.scene.image.pixels[5, 5].tolist() == [0, 0, 0]
    actin = viewer._toolbar.channels.children[1]
    actin.window.max = 4000
    actin.window.value = (0, 4000)
    assert actin.left_out.value == "by hand"
    assert viewer.scene.image.pixels[5, 30].tolist() == [128, 0, 128]
    actin.left_out.value = "0.2 %"
    assert viewer.scene.image.pixels[5, 30].tolist() == [255, 0, 255]


def test_a_contrast_set_by_hand_holds_for_other_images_until_it_is_automatic_again(viewer):
    slider = viewer._toolbar.channels.children[0].window
    window = slider.value
    slider.value = (10, 90)
    viewer.show("right")
    assert palette(viewer).channels[0].contrast_limits == (10, 90)
    viewer.show("left")
    viewer._toolbar.channels.children[0].left_out.value = "0.2 %"
    assert palette(viewer).channels[0].contrast_limits == window
    viewer.show("right")
    assert palette(viewer).channels[0].contrast_limits != (10, 90)


def test_contrast_by_percentile_gamma_and_the_colour_of_a_channel_change_the_picture(project):
    values = np.stack([np.tile(np.arange(1000, dtype=np.float32), (30, 1)), np.zeros((30, 1000), np.float32)])
    project.add("cells", values, np.ones((30, 1000), np.uint8), axes="cyx", channels=["dna", "actin"])
    viewer = Viewer(project)
    viewer.show("cells")
    dna = viewer._toolbar.channels.children[0]
    assert (dna.left_out.value, dna.gamma.value) == ("0.2 %", 1.0)
    dna.left_out.value = "5 %"
    assert dna.window.value == pytest.approx((50, 949), abs=2)
    dna.left_out.value = "all values"
    assert viewer.scene.image.pixels[0, 250].tolist() == [0, 64, 0]
    dna.gamma.value = 2.0
    assert viewer.scene.image.pixels[0, 250].tolist() == [0, 128, 0]
    find(viewer, ColorPicker, "Colour of dna").value = "#ff0000"
    assert viewer.scene.image.pixels[0, 250].tolist() == [128, 0, 0]


def test_a_colour_image_is_shown_as_it_is_stored_until_its_contrast_is_changed(project):
    colours = np.random.default_rng(0).integers(40, 200, (30, 40, 3), np.uint8)
    project.add("smear", colours, np.ones((30, 40), np.uint8), axes="yxs")
    viewer = Viewer(project)
    viewer.show("smear")
    np.testing.assert_array_equal(viewer.scene.image.pixels, colours)
    (row,) = viewer._toolbar.channels.children
    assert row.left_out.value == "as stored"
    row.window.value = (40, 200)
    assert viewer.scene.image.pixels.max() == round(255 * 159 / 160)
    row.left_out.value = "as stored"
    np.testing.assert_array_equal(viewer.scene.image.pixels, colours)


def test_an_image_whose_file_is_gone_says_so_and_the_others_still_work(project, tmp_path):
    import tifffile

    for name, values in (("gone", np.zeros((40, 50), np.uint8)), ("mask", np.ones((40, 50), np.uint8))):
        tifffile.imwrite(tmp_path / f"{name}.tif", values)
    project.add("gone", tmp_path / "gone.tif", tmp_path / "mask.tif", axes="yx")
    viewer = Viewer(project)
    (tmp_path / "gone.tif").unlink()
    viewer.show("gone", 1)
    assert viewer.selected == 0
    assert "gone.tif does not exist" in viewer.status.text
    assert viewer.status.layout.display != "none"
    assert viewer.scene is None
    click(viewer, 5, 5)
    press(viewer, "+")
    viewer.show("left", 3)
    assert viewer.status.text == ""
    assert viewer.scene.object_at(*viewer.view.to_screen(*middle(3))) == 3


def test_a_block_that_cannot_be_read_says_so_and_leaves_the_viewer_usable(viewer, project):
    broken = viewer._opened.image._compute

    def fail(*where):
        raise OSError("block 7 is damaged")

    viewer.memory_mb = 0
    viewer._opened.image._compute = fail
    viewer.zoom(5)
    assert "left cannot be shown (block 7 is damaged)" in viewer.status.text
    project.annotate("left", 3, "bright")
    assert project.annotations.label_of("left", 3).action == "label"
    viewer._opened.image._compute = broken
    viewer.fit()
    assert viewer.status.text == ""
    assert viewer.scene.view == viewer.view


def test_an_exception_in_a_key_callback_is_shown_and_not_lost(viewer):
    viewer.on_key(lambda key, shown: 1 / 0)
    press(viewer, "1")
    assert "ZeroDivisionError" in viewer.status.text
    click(viewer, *middle(2))
    assert viewer.selected == 2


def test_a_sharp_screen_is_drawn_in_its_own_pixels(viewer):
    viewer._pointer.dpr = 2.0
    assert viewer.scene.view.device_size == tuple(2 * n for n in viewer.view.size)
    click(viewer, *middle(10))
    assert viewer.selected == 10


def test_a_closed_viewer_follows_the_project_no_more(viewer, project):
    scene = viewer.scene
    viewer.close()
    project.annotate("left", 3, "bright")
    assert viewer.scene is scene
