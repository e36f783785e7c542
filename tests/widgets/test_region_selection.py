"""Selection of several objects on the image, and labeling them in one edit."""

from __future__ import annotations

import os

import numpy as np
import pytest
from ipywidgets import Button, ToggleButton

from svetlana_jupyter.widgets.annotation_panel import AnnotationPanel
from svetlana_jupyter.widgets.labeling import KEY_IGNORED
from svetlana_jupyter.widgets.prediction_panel import PredictionPanel
from svetlana_jupyter.widgets.viewer.viewer import Viewer
from tests.widgets import page as pages
from tests.widgets.viewer.test_viewer import click, colors, find, middle, press, rgb, send


@pytest.fixture
def viewer(project):
    return Viewer(project)


@pytest.fixture
def panel(project):
    return AnnotationPanel(project)


@pytest.fixture
def volume(empty):
    """A project with a volume of ten planes: objects 1 to 9 are cubes in a row, object n fills planes n - 1 to n."""
    mask = np.zeros((10, 12, 100), np.uint8)
    for n in range(1, 10):
        mask[n - 1 : n + 1, 4:8, 10 * n : 10 * n + 4] = n
    empty.add("volume", mask * 20, mask, axes="zyx")
    empty.classes.add("one")
    return empty


def drag(viewer, *points, modifiers="", release=True):
    """Drag through points (y, x) of the image."""
    places = [dict(zip(("row", "column"), viewer.model.view.to_screen(*point))) for point in points]
    send(viewer, "pressed", **places[0], button=0, modifiers=modifiers)
    for place in places[1:]:
        send(viewer, "moved", **place)
    if release:
        send(viewer, "released", **places[-1], time=1.0)


def shift_click(viewer, y, x):
    row, column = viewer.model.view.to_screen(y, x)
    send(viewer, "pressed", row=row, column=column, button=0, modifiers="Shift")
    send(viewer, "released", row=row, column=column, time=1.0)


def right_click(viewer, y, x):
    click(viewer, y, x, button=2)


def haloed(viewer, label):
    """Return whether the frame shows a line just outside an object's bounding box of 9 x 9 pixels."""
    layer = viewer.model.scene.selection
    y, x = middle(label)
    row, column = viewer.model.view.to_screen(y - 4.5, x)
    top, left = viewer.model.scene.offset
    at = round(row) - top - 1 - layer.offset[0], round(column) - left - layer.offset[1]
    return layer is not None and all(0 <= i < n for i, n in zip(at, layer.codes.shape)) and layer.codes[at] == 1


def test_a_box_selects_the_objects_whose_centroid_is_inside(viewer):
    viewer.model.tool = "box"
    (y, x), (bottom, right) = middle(1), middle(8)
    drag(viewer, (y - 2, x - 2), (30, 20), (bottom + 1, right + 1))
    assert viewer.model.selection == (1, 2, 7, 8)
    assert viewer.model.selected == 0
    assert viewer.model.lasso == viewer.model.scene.lasso == ()


def test_a_lasso_is_displayed_and_selects_the_objects_inside(viewer):
    viewer.model.tool = "lasso"
    a, b, c = middle(1), middle(3), middle(15)
    drag(viewer, (a[0] - 3, a[1] - 3), (b[0] - 3, b[1] + 3), (c[0] + 3, c[1] + 3), release=False)
    assert len(viewer.model.scene.lasso) == 3
    assert viewer.model.selection == ()
    send(viewer, "released", row=0, column=0, time=1.0)
    assert viewer.model.selection == (1, 2, 3, 8, 9, 15)
    assert viewer.model.scene.lasso == ()


@pytest.mark.parametrize("tool", ["box", "lasso"])
def test_with_a_tool_a_click_still_selects_and_the_middle_button_still_moves(viewer, tool):
    viewer.model.zoom(3)
    viewer.model.tool = tool
    click(viewer, *middle(9))
    assert viewer.model.selection == (9,)
    center = viewer.model.view.center
    send(viewer, "pressed", row=100, column=100, button=1)
    send(viewer, "moved", row=150, column=130)
    send(viewer, "released", row=150, column=130, time=1.0)
    assert viewer.model.view.center != center
    assert viewer.model.selection == (9,)


def test_zooming_in_the_middle_of_a_lasso_keeps_it_on_the_image(viewer):
    viewer.model.tool = "box"
    drag(viewer, (1, 1), (20, 20), release=False)
    send(viewer, "wheeled", delta=-60, row=5, column=5)
    row, column = viewer.model.view.to_screen(32, 33)
    send(viewer, "moved", row=row, column=column)
    send(viewer, "released", row=row, column=column, time=1.0)
    assert viewer.model.selection == (1, 2, 7, 8)


def test_shift_click_adds_an_object_and_removes_it_again(viewer):
    click(viewer, *middle(3))
    shift_click(viewer, *middle(9))
    shift_click(viewer, *middle(20))
    assert viewer.model.selection == (3, 9, 20)
    shift_click(viewer, 1, 1)
    assert viewer.model.selection == (3, 9, 20), "the background removes nothing"
    shift_click(viewer, *middle(3))
    shift_click(viewer, *middle(20))
    assert (viewer.model.selection, viewer.model.selected) == ((9,), 9)
    click(viewer, *middle(4))
    assert viewer.model.selection == (4,)


def test_shift_drag_adds_the_objects_in_a_box_with_any_tool(viewer):
    click(viewer, *middle(24))
    drag(viewer, (1, 1), (30, 30), modifiers="Shift")
    assert viewer.model.selection == (1, 2, 7, 8, 24)


def test_the_add_button_replaces_shift(viewer):
    find(viewer, ToggleButton, "Add to").value = True
    click(viewer, *middle(3))
    click(viewer, *middle(9))
    viewer.model.tool = "box"
    drag(viewer, (1, 1), (30, 30))
    assert viewer.model.selection == (1, 2, 3, 7, 8, 9)


def test_without_the_pointer_helper_box_and_add_button_work_by_canvas_events(viewer):
    fire = viewer.screen.canvas.widget._canvases[-1]._handle_frontend_event
    find(viewer, ToggleButton, "Box").value = True
    for event, y, x in (("mouse_down", 1, 1), ("mouse_move", 15, 15), ("mouse_move", 30, 30), ("mouse_up", 30, 30)):
        row, column = viewer.model.view.to_screen(y, x)
        fire(None, {"event": event, "x": column, "y": row}, [])
    assert viewer.model.selection == (1, 2, 7, 8)
    for event, y, x in (("mouse_down", 39, 42), ("mouse_move", 50, 50), ("mouse_move", 63, 95), ("mouse_out", 63, 95)):
        row, column = viewer.model.view.to_screen(y, x)
        fire(None, {"event": event, "x": column, "y": row}, [])
    assert viewer.model.selection == (16, 17, 18, 22, 23, 24), (
        "leaving the canvas ends a box, as the release outside is not reported"
    )


def test_all_visible_objects_are_selected_by_key_and_by_button(viewer):
    press(viewer, "a", control=True)
    assert viewer.model.selection == tuple(range(1, 25))
    press(viewer, "Escape")
    assert viewer.model.selection == ()
    viewer.show("left", 9)
    find(viewer, Button, "Select all").click()
    assert 9 in viewer.model.selection
    assert 0 < len(viewer.model.selection) < 24


def test_escape_cancels_lasso_selection_and_tool_in_turn_and_is_then_passed_on(viewer):
    keys = []
    viewer.screen.handle_key = lambda key, shown: keys.append(key)
    click(viewer, *middle(5))
    press(viewer, "l")
    assert viewer.model.tool == "lasso"
    drag(viewer, (1, 1), (30, 30), (30, 1), release=False)
    press(viewer, "Escape")
    assert (viewer.model.lasso, viewer.model.selection) == ((), (5,))
    send(viewer, "released", row=0, column=0, time=1.0)
    assert viewer.model.selection == (5,)
    press(viewer, "Escape")
    assert (viewer.model.selection, viewer.model.tool) == ((), "lasso")
    press(viewer, "Escape")
    assert (viewer.model.tool, keys) == ("move", [])
    press(viewer, "Escape")
    assert keys == ["Escape"]


def test_keys_and_buttons_of_the_tools_follow_each_other(viewer):
    box, lasso = find(viewer, ToggleButton, "Box"), find(viewer, ToggleButton, "Lasso")
    press(viewer, "x")
    assert (box.value, lasso.value) == (True, False)
    lasso.value = True
    assert (box.value, viewer.model.tool) == (False, "lasso")
    press(viewer, "l")
    assert (lasso.value, viewer.model.tool) == (False, "move")
    box.value = True
    box.value = False
    assert viewer.model.tool == "move"


def test_buttons_that_need_a_selection_are_disabled_without_one(viewer):
    none = find(viewer, Button, "Clear the selection")
    assert none.disabled
    click(viewer, *middle(5))
    assert not none.disabled
    none.click()
    assert viewer.model.selection == ()


def test_each_selected_object_has_a_halo_and_no_other_has(viewer):
    viewer.model.selection = [3, 9, 3]
    assert viewer.model.selection == (3, 9)
    assert [label for label in range(1, 25) if haloed(viewer, label)] == [3, 9]


def test_one_selected_object_and_a_selection_of_one_are_the_same(viewer):
    viewer.model.selected = 5
    assert viewer.model.selection == (5,)
    viewer.model.selection = (7,)
    assert viewer.model.selected == 7
    viewer.model.selection = (7, 8)
    assert viewer.model.selected == 0
    viewer.show("left", 9)
    assert viewer.model.selection == (9,)
    viewer.model.selected = 0
    assert viewer.model.selection == ()


def test_another_image_begins_without_a_selection(viewer):
    viewer.model.selection = (3, 9)
    viewer.model.image = "right"
    assert (viewer.model.selection, viewer.screen.pointer.shown) == ((), [])


@pytest.mark.parametrize(
    ("reach", "plane", "span", "expected"),
    [
        ("plane", 0, (0, 9), (1,)),
        ("plane", 4, (0, 9), (4, 5)),
        ("range", 0, (2, 5), (2, 3, 4, 5)),
        ("range", 0, (9, 9), (9,)),
        ("all", 0, (0, 0), tuple(range(1, 10))),
    ],
)
def test_a_box_selects_from_the_plane_a_range_of_planes_or_all_planes(volume, reach, plane, span, expected):
    viewer = Viewer(volume)
    viewer.model.tool, viewer.model.plane_scope, viewer.model.plane_range, viewer.model.plane = (
        "box",
        reach,
        span,
        plane,
    )
    drag(viewer, (0, 1), (5, 5), (12, 99))
    assert viewer.model.selection == expected


def test_the_choice_of_planes_is_displayed_for_a_volume_while_a_tool_is_active(viewer, volume):
    deep = Viewer(volume)
    tools = deep.toolbar.tools
    assert tools.planes.layout.display == "none"
    deep.model.tool = "lasso"
    assert (tools.planes.layout.display, tools.plane_range.layout.display) == ("flex", "none")
    tools.plane_scope.value = "range"
    tools.plane_range.value = (2, 4)
    assert (deep.model.plane_scope, deep.model.plane_range, tools.plane_range.layout.display) == ("range", (2, 4), "")
    viewer.model.tool = "lasso"
    assert viewer.toolbar.tools.planes.layout.display == "none"


def test_a_key_labels_the_selection_in_one_edit_and_one_sync(panel, project, monkeypatch):
    panel.viewer.model.tool = "box"
    drag(panel.viewer, (1, 1), (30, 30))
    assert "4 objects in left selected" in panel.status.text
    syncs, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (syncs.append(file), sync(file)))
    press(panel.viewer, "1", shown=panel.shown)
    log = project.annotations.table()
    assert len(syncs) == 1
    assert list(log["object"]) == [1, 2, 7, 8]
    assert log["edit"].nunique() == log["time"].nunique() == 1
    assert set(log["action"]) == {"label"}
    assert set(log["source"]) == {"panel"}
    bright = rgb(project.classes.by_name("bright").color)
    assert [label for label in range(1, 25) if colors(panel.viewer, label) == {bright}] == [1, 2, 7, 8]
    assert panel.viewer.model.selection == (1, 2, 7, 8), "the selection stays, to be corrected"


def test_class_buttons_flags_and_erasing_apply_to_the_whole_selection(panel, project):
    panel.viewer.model.selection = (3, 9, 20)
    panel.class_buttons.row(2).button.click()
    assert set(project.labels()["class"]) == {"dark"}
    assert len(project.labels()) == 3
    panel.command_bar.buttons["Bad segmentation"].click()
    assert set(project.labels()["action"]) == {"bad_segmentation"}
    panel.command_bar.buttons["Erase"].click()
    assert project.labels().empty
    assert project.annotations.table()["edit"].tolist() == [1] * 3 + [2] * 3 + [3] * 3


def test_undo_reverts_the_whole_edit_and_shows_its_objects(panel, project):
    panel.viewer.model.selection = (3, 9, 20)
    press(panel.viewer, "1", shown=panel.shown)
    panel.viewer.show("right", 5)
    press(panel.viewer, "u", shown=panel.shown)
    assert project.labels().empty
    assert (panel.viewer.model.image, panel.viewer.model.selection) == ("left", (3, 9, 20))
    press(panel.viewer, "r", shown=panel.shown)
    assert len(project.labels()) == 3
    assert panel.status.text == "Redo: 3 objects in left."


def test_a_key_typed_for_another_selection_labels_nothing(panel, project):
    panel.viewer.model.selection = (3, 9)
    before = panel.viewer.screen.pointer.shown
    panel.viewer.model.selection = (3, 10)
    assert panel.viewer.screen.pointer.shown != before
    press(panel.viewer, "1", shown=before)
    assert project.labels().empty
    assert panel.status.text == KEY_IGNORED
    panel.viewer.show("left", 3)
    press(panel.viewer, "1", shown=before)
    assert project.labels().empty


def test_a_key_right_after_a_lasso_applies_to_its_selection(panel, project):
    panel.viewer.show("left", 24)
    panel.viewer.model.fit()
    panel.viewer.model.tool = "box"
    drag(panel.viewer, (1, 1), (30, 30))
    send(panel.viewer, "key_pressed", key="2", control=False, shown=None)
    assert project.labels().droplevel("image").index.tolist() == [1, 2, 7, 8]


def test_labeling_a_region_does_not_advance_the_queue(panel):
    press(panel.viewer, "n")
    panel.viewer.model.fit()
    panel.viewer.model.selection = (1, 2)
    press(panel.viewer, "1", shown=panel.shown)
    assert panel.viewer.model.selection == (1, 2)
    assert set(panel.project.annotations.table()["source"]) == {"panel"}


def test_a_right_click_opens_a_menu_with_the_classes_and_the_flags(panel, project):
    project.classes.add("<b>odd</b>", "#123456")
    right_click(panel.viewer, *middle(9))
    menu = panel.menu
    assert menu.is_open
    assert [button.description for button in menu.buttons()] == [
        "bright",
        "dark",
        "<b>odd</b>",
        "Ambiguous",
        "Bad segmentation",
        "Erase",
    ]
    assert "#123456" in menu.buttons()[2].layout.border_left
    assert "Object 9 in left" in menu.children[0].value
    menu.buttons()[1].click()
    assert project.labels()["class"].to_dict() == {("left", 9): "dark"}
    assert not menu.is_open


def test_the_menu_applies_to_the_selection_or_to_an_object_outside_of_it(panel, project):
    panel.viewer.model.selection = (3, 9, 20)
    right_click(panel.viewer, *middle(9))
    assert "3 objects in left" in panel.menu.children[0].value
    panel.menu.buttons()[2].click()
    assert project.labels()["action"].tolist() == ["ambiguous"] * 3
    right_click(panel.viewer, *middle(4))
    assert panel.viewer.model.selection == (4,)
    panel.menu.buttons()[-1].click()
    assert len(project.labels()) == 3


@pytest.mark.parametrize("key", ["ContextMenu", "Shift+F10"])
def test_the_menu_opens_by_key_and_by_button_next_to_the_selection(panel, key):
    panel.viewer.screen.pointer._handle_custom_msg(
        {"event": "key_pressed", "key": key, "control": False, "shown": []}, []
    )
    assert not panel.menu.is_open, "nothing is selected"
    panel.viewer.show("left", 9)
    panel.viewer.screen.pointer._handle_custom_msg(
        {"event": "key_pressed", "key": key, "control": False, "shown": []}, []
    )
    assert panel.menu.is_open
    row, column = panel.viewer.model.view.to_screen(*middle(9))
    assert panel.viewer.model.menu == pytest.approx((row, column))
    press(panel.viewer, "Escape")
    assert (panel.menu.is_open, panel.viewer.model.selection) == (False, (9,))
    find(panel.viewer, Button, "Label the selection").click()
    assert panel.menu.is_open


def test_a_key_of_a_class_works_with_the_menu_open_and_closes_it(panel, project):
    right_click(panel.viewer, *middle(9))
    press(panel.viewer, "1", shown=panel.shown)
    assert project.labels()["class"].tolist() == ["bright"]
    assert not panel.menu.is_open


def test_a_click_elsewhere_and_the_wheel_close_the_menu(panel):
    right_click(panel.viewer, *middle(9))
    click(panel.viewer, 1, 1)
    assert not panel.menu.is_open
    right_click(panel.viewer, *middle(9))
    send(panel.viewer, "wheeled", delta=-60, row=5, column=5)
    assert not panel.menu.is_open


@pytest.mark.parametrize("label", [1, 6, 19, 24])
def test_the_menu_stays_inside_the_image_area(panel, label):
    right_click(panel.viewer, *middle(label))
    height, width = panel.viewer.model.view.size
    top, left, wide = (int(getattr(panel.menu.layout, name)[:-2]) for name in ("top", "left", "width"))
    assert top >= 0
    assert top + 26 * len(panel.menu.items) < height
    assert left >= 0
    assert left + wide <= width


def test_a_menu_of_many_classes_is_not_higher_than_the_image_area(panel, project):
    for number in range(40):
        project.classes.add(f"class {number}")
    right_click(panel.viewer, *middle(24))
    assert len(panel.menu.items) == 45
    assert int(panel.menu.layout.top[:-2]) + int(panel.menu.layout.max_height[:-2]) < panel.viewer.model.view.size[0]


def test_a_menu_item_never_labels_another_object_than_its_own(panel, project):
    right_click(panel.viewer, *middle(9))
    late = panel.menu.items[0]
    panel.viewer.show("left", 4)
    late.act()
    assert project.labels().empty
    assert panel.status.text == KEY_IGNORED


def test_the_review_panel_corrects_a_selection_and_accepts_one_by_one(trained):
    panel = PredictionPanel(trained)
    panel.viewer.show("right")
    panel.viewer.model.selection = (3, 9)
    before = len(trained.annotations.table())
    press(panel.viewer, "Enter", shown=panel.shown)
    assert panel.status.text == "Select a single object: predictions are accepted one by one."
    press(panel.viewer, "2", shown=panel.shown)
    log = trained.annotations.table()[before:]
    assert list(zip(log["object"], log["source"])) == [(3, "correction"), (9, "correction")]


def test_the_lasso_is_sent_as_a_line_and_removed_when_it_is_closed(viewer, monkeypatch):
    page = pages.Page()
    pages.listen(monkeypatch).append(page)
    viewer.screen.canvas._client_ready()
    viewer.model.tool = "lasso"
    drag(viewer, (1, 1), (30, 30), (30, 1), release=False)
    assert [name for _, name, _ in page.messages[-1]].count("strokePolygon") == 2
    assert not any(name == "putImageData" for _, name, _ in page.messages[-1]), "drawing the lasso sends no images"
    send(viewer, "released", row=0, column=0, time=1.0)
    assert "strokePolygon" not in [name for _, name, _ in page.messages[-1]]


def test_every_key_of_the_tools_is_in_the_help(panel):
    for key in ("x", "l", "Shift", "Ctrl+A", "Escape", "Shift+F10"):
        assert f">{key}</kbd>" in panel.command_bar.help.value


def test_keys_and_buttons_zoom_about_the_visible_selection(viewer, project):
    viewer.model.set_view(viewer.model.view.zoomed(3))
    viewer.model.selected = 16  # a row above the middle, and to the right
    before = viewer.model.view.to_screen(40.5, 56.5)
    assert before != (viewer.model.view.size[0] / 2, viewer.model.view.size[1] / 2)
    project.objects("left")
    press(viewer, "+")
    find(viewer, Button, "Zoom in (+)").click()
    assert viewer.model.view.to_screen(40.5, 56.5) == pytest.approx(before)
    viewer.selector.clear_selection()
    center = viewer.model.view.center
    press(viewer, "+")
    assert viewer.model.view.center == pytest.approx(center), "about the center without a selection"
