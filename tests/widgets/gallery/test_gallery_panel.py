"""Gallery, tested by clicks, drags and keys: the project, the last scene, and what the browser is sent."""

from __future__ import annotations

import numpy as np
import pytest

from svetlana_jupyter.core.display.scene import BRIGHT_INK, DARK_INK
from svetlana_jupyter.core.io.pyramid import PyramidLevel
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.gallery.gallery_panel import GalleryPanel
from svetlana_jupyter.widgets.gallery.grid import MARKS, PICTURES
from tests.widgets.conftest import squares
from tests.widgets.page import Page, listen

NOW = object()


@pytest.fixture
def panel(project):
    """All 48 objects on one page, in the order of their images."""
    return ordered(GalleryPanel(project), "position")


def ordered(panel, order, **wanted):
    panel.filter_bar.order.value = order
    for name, value in wanted.items():
        getattr(panel.filter_bar, name).value = value
    return panel


def send(panel, event, **content):
    panel.page.screen.pointer._handle_custom_msg({"event": event, **content}, [])


def point(panel, cell):
    row, column = panel.page.grid.corner(cell)
    return {"row": row + 10.0, "column": column + 10.0}


def click(panel, cell, modifiers=""):
    send(panel, "pressed", **point(panel, cell), button=0, modifiers=modifiers)
    send(panel, "released", **point(panel, cell), time=1.0)


def press(panel, key, shown=NOW, control=False, shift=False):
    """Type a key while a selection is on the screen: the current one unless a slow page shows another."""
    shown = panel.shown if shown is NOW else shown
    send(panel, "key_pressed", key=key, control=control, shift=shift, shown=list(shown or []))


def selected(panel):
    return sorted(panel.page.selection.chosen)


def labels_of(project):
    return {class_id: row["class"] or row["action"] for class_id, row in project.labels().to_dict("index").items()}


def shown(panel):
    return list(panel.page.objects)


def cell_pixels(panel, cell):
    grid = panel.page.grid
    top, left = grid.corner(cell)
    return panel.page.scene.pixels[top : top + grid.side, left : left + grid.side]


def has_picture(panel, cell):
    return list(panel.page.grid.corner(cell)) in panel.page.scene.boxes[:, :2].tolist()


def test_every_object_has_a_thumbnail_with_itself_in_the_center(panel):
    assert len(panel.page.scene.cell_captions) == 48
    assert shown(panel)[:3] == [("left", 1), ("left", 2), ("left", 3)]
    middles = [cell_pixels(panel, cell)[25:32, 25:32].mean() for cell in range(48)]
    assert all(bright > dark + 20 for bright, dark in zip(middles[::2], middles[1::2])), "odd objects are bright"
    assert has_picture(panel, 8)
    assert not has_picture(panel, 50)


def test_a_wider_page_shows_more_thumbnails_of_the_same_size_and_captions_follow_the_theme(panel):
    assert (panel.page.grid.columns, panel.page.grid.side) == (10, 57)
    click(panel, 3)
    panel.page.screen.pointer.width = 640
    assert selected(panel) == [3], "as many objects as before"
    panel.page.screen.pointer.width = 1000
    assert panel.page.grid.columns == 16
    assert 50 <= panel.page.grid.side <= 57
    assert panel.page.scene.grid == panel.page.grid
    assert panel.page.scene.ink == DARK_INK
    panel.page.screen.pointer.dark = True
    assert panel.page.scene.ink == BRIGHT_INK


def test_the_thumbnails_of_each_image_can_be_shown_as_they_arrive(panel):
    page = panel.page._page(panel.page.objects)
    parts = page.by_image()
    assert [{name for name, _, _ in part.keys} for part in parts] == [{"left"}, {"right"}]
    assert sorted(key for part in parts for key in part.keys) == sorted(page.keys)


def test_the_number_of_objects_on_the_page_follows_the_filter(panel):
    assert "0 of 48 on this page" in panel.selection_text.value
    panel.filter_bar.image.value = panel.filter_bar.image.options[1][1]
    assert f"0 of {len(panel.page.objects)} on this page" in panel.selection_text.value
    assert len(panel.page.objects) < 48


def test_one_key_labels_the_selection_in_one_edit(panel, project):
    click(panel, 3)
    click(panel, 30, modifiers="Shift")
    press(panel, "2")
    assert len(labels_of(project)) == 28
    assert set(labels_of(project).values()) == {"dark"}
    assert {image for image, _ in labels_of(project)} == {"left", "right"}
    log = project.annotations.table()
    assert log["edit"].nunique() == 1
    assert set(log["source"]) == {"gallery"}
    assert log["seconds"].notna().all()
    assert panel.status.text == "28 objects are labeled dark."
    assert selected(panel) == list(range(3, 31)), "another key corrects the label"


def test_a_class_button_does_the_same(panel, project):
    click(panel, 0)
    panel.class_buttons.row(1).button.click()
    assert labels_of(project) == {("left", 1): "bright"}


def test_clicks_select_one_object_a_range_and_one_more(panel):
    click(panel, 5)
    assert selected(panel) == [5]
    click(panel, 2, modifiers="Shift")
    assert selected(panel) == [2, 3, 4, 5]
    click(panel, 9, modifiers="Ctrl")
    click(panel, 4, modifiers="Ctrl")
    assert selected(panel) == [2, 3, 5, 9]
    click(panel, 7)
    assert selected(panel) == [7]
    send(panel, "pressed", **point(panel, 20), button=2)
    assert selected(panel) == [7], "the right button selects nothing"


def test_dragging_selects_all_objects_on_the_way(panel):
    send(panel, "pressed", **point(panel, 4), button=0)
    for cell in (5, 6, 16, 15):
        send(panel, "moved", **point(panel, cell))
    send(panel, "released", **point(panel, 15), time=1.0)
    send(panel, "moved", **point(panel, 40))
    assert selected(panel) == list(range(4, 16))


def test_keys_select_all_the_others_none_and_the_neighbor(panel):
    press(panel, "a", control=True)
    assert len(selected(panel)) == 48
    press(panel, "Escape")
    assert selected(panel) == []
    click(panel, 11)
    press(panel, "ArrowDown")
    press(panel, "ArrowRight", shift=True)
    press(panel, "ArrowRight", shift=True)
    assert selected(panel) == [21, 22, 23]
    press(panel, "i")
    assert len(selected(panel)) == 45
    assert 22 not in selected(panel)


def test_buttons_select_too(panel):
    panel.page_bar.all.click()
    assert len(selected(panel)) == 48
    click(panel, 0)
    panel.page_bar.invert_button.click()
    assert selected(panel) == list(range(1, 48))
    panel.page_bar.none.click()
    assert selected(panel) == []
    assert panel.page_bar.none.disabled


def test_a_key_typed_before_the_selection_was_displayed_labels_nothing(panel, project):
    click(panel, 0)
    before = panel.shown
    click(panel, 1)
    press(panel, "1", shown=before)
    assert labels_of(project) == {}
    assert "the selection was not displayed yet" in panel.status.text
    press(panel, "Escape")
    press(panel, "1")
    assert labels_of(project) == {}
    assert "No object selected" in panel.status.text


def test_a_key_right_after_a_click_applies_to_the_clicked_thumbnail(panel, project):
    click(panel, 6)
    send(panel, "key_pressed", key="1", control=False, shown=None)
    assert labels_of(project) == {("left", 7): "bright"}


def test_turning_the_page_selects_nothing_and_a_key_typed_before_labels_nothing(panel, project):
    panel.page.columns = 5
    press(panel, "a", control=True)
    before = panel.shown
    press(panel, "n")
    assert selected(panel) == []
    press(panel, "1", shown=before)
    assert labels_of(project) == {}


def test_undo_and_redo_show_the_page_and_select_the_objects_of_the_edit(panel, project):
    panel.page.columns = 5
    per_page = panel.page.grid.count
    click(panel, 1)
    click(panel, 3, modifiers="Shift")
    press(panel, "1")
    press(panel, "End")
    click(panel, 0)
    press(panel, "b")
    press(panel, "u")
    assert labels_of(project) == dict.fromkeys([("left", 2), ("left", 3), ("left", 4)], "bright")
    assert panel.status.text.startswith("Undo: object")
    panel.command_bar.buttons["Undo"].click()
    assert labels_of(project) == {}
    assert panel.view.page_number == 0
    assert selected(panel) == [1, 2, 3]
    assert panel.status.text == "Undo: 3 objects."
    assert panel.command_bar.buttons["Undo"].disabled
    press(panel, "r")
    press(panel, "r")
    assert labels_of(project)[shown(panel)[0]] == "bad_segmentation"
    assert panel.view.page_number == 48 // per_page
    press(panel, "r")
    assert panel.status.text == "Nothing to redo."


def test_undoing_the_label_of_an_object_that_the_mask_lost_says_so(panel, project):
    click(panel, 0)
    press(panel, "1")
    _, mask = squares(0)
    project.replace_mask("left", np.where(mask == 1, 0, mask))
    press(panel, "u")
    assert panel.status.text == "Undo: the object is no longer in the mask."


@pytest.mark.parametrize(("key", "action"), [("s", "skip"), ("a", "ambiguous"), ("b", "bad_segmentation")])
def test_flags_apply_to_the_whole_selection(panel, project, key, action):
    click(panel, 20)
    click(panel, 26, modifiers="Shift")
    press(panel, key)
    assert set(labels_of(project).values()) == {action}
    assert len(labels_of(project)) == 7
    press(panel, "Delete")
    assert labels_of(project) == {}


def test_pages_are_turned_by_keys_buttons_the_wheel_and_the_number(panel):
    panel.page.columns = 5  # fifteen per page
    assert panel.page_bar.of.value == "of 4"
    for key, page in [("n", 1), (" ", 2), ("PageUp", 1), ("End", 3), ("PageDown", 3), ("Home", 0), ("p", 0)]:
        press(panel, key)
        assert panel.view.page_number == page
    panel.page_bar.next.click()
    panel.page_bar.last.click()
    assert panel.view.page_number == 3
    assert panel.page_bar.next.disabled
    assert len(shown(panel)) == 3
    panel.page_bar.number.value = 2
    assert shown(panel)[0] == ("left", 16)
    for _ in range(3):
        send(panel, "wheeled", delta=-40, row=1, column=1)
    assert panel.view.page_number == 0


def test_larger_thumbnails_keep_the_first_object_of_the_page_visible(panel):
    press(panel, "+")
    press(panel, "n")
    first = shown(panel)[0]
    for _ in range(5):
        press(panel, "+")
    assert first in shown(panel)
    assert panel.page.columns == 5
    for _ in range(9):
        press(panel, "-")
    assert first in shown(panel)
    assert panel.page.columns == 15


def test_the_field_of_view_and_the_outlines_can_be_changed(panel):
    with_outlines = panel.page.scene.pixels
    press(panel, "o")
    without = panel.page.scene.pixels
    assert (with_outlines != without).any()
    assert not panel.display_bar.outlines.value
    press(panel, "]")
    assert panel.page.field_of_view > 1
    assert (panel.page.scene.pixels != without).any()


def test_a_page_stays_while_it_is_annotated_and_is_arranged_again_on_demand(panel, project):
    ordered(panel, "position", which="unlabeled")
    click(panel, 0)
    press(panel, "1")
    assert shown(panel)[0] == ("left", 1)
    assert panel.page.scene.cell_captions[0].name == "bright"
    press(panel, "g")
    assert shown(panel)[0] == ("left", 2)
    panel.filter_bar.which.value = "annotated"
    assert shown(panel) == [("left", 1)]
    assert panel.filter_bar.count_label.value == "1 object"


def test_a_filter_without_matches_shows_a_message(panel):
    panel.filter_bar.which.value = "annotated"
    assert shown(panel) == []
    assert "No object matches" in panel.page.scene.message
    for key in ("ArrowDown", "i", "n", "1"):
        press(panel, key)
    press(panel, "a", control=True)
    assert selected(panel) == []
    assert panel.page_bar.all.disabled


def test_one_image_can_be_shown_alone(panel):
    panel.filter_bar.image.value = "right"
    assert {image for image, _ in shown(panel)} == {"right"}
    assert len(shown(panel)) == 24


def test_frames_show_annotations_and_predictions(trained):
    panel = ordered(GalleryPanel(trained), "class")
    tiles = dict(zip(shown(panel), panel.page.scene.cell_captions))
    bright = trained.classes.by_name("bright")
    annotated = tiles["left", 1]
    assert (annotated.color, annotated.is_annotated, annotated.name, annotated.share) == (
        bright.color,
        True,
        "bright",
        "",
    )
    row = trained.probabilities("right").loc[3]
    predicted = tiles["right", 3]
    assert predicted.color == trained.classes.by_id(int(row["predicted"])).color
    assert not predicted.is_annotated
    assert predicted.share == f"{row['probability']:.0%}"
    assert panel.page.scene.cell_captions[0].color == bright.color, "the first class comes first"
    ordered(panel, "uncertain")
    shares = [tile.share for tile in panel.page.scene.cell_captions if tile.share]
    assert shares == sorted(shares, key=lambda share: int(share[:-2] if share.endswith(" %") else share[:-1]))


def test_accepting_keeps_all_predictions_in_one_edit(trained):
    panel = ordered(GalleryPanel(trained), "position", image="right")
    press(panel, "a", control=True)
    press(panel, "Enter")
    predicted = trained.probabilities("right")["predicted"].map(trained.classes.by_id)
    assert {label: labels_of(trained)["right", label] for label in predicted.index} == {
        label: info.name for label, info in predicted.items()
    }
    assert trained.annotations.table()["edit"].iloc[-24:].nunique() == 1


def test_without_predictions_there_is_nothing_to_accept(panel, project):
    click(panel, 0)
    assert panel.command_bar.buttons["Accept"].disabled
    press(panel, "Enter")
    assert labels_of(project) == {}
    assert "No selected object is predicted yet" in panel.status.text


def test_the_pointer_names_the_object(panel, project):
    project.annotate("left", 5, "bright")
    send(panel, "moved", **point(panel, 4))
    assert panel.page.scene.hint.text == "object 5 in left · bright"
    send(panel, "pointer_left")
    assert panel.page.scene.hint is None


def test_the_gallery_follows_scripts_and_other_panels(panel, project):
    project.annotate("left", 2, "dark")
    assert panel.page.scene.cell_captions[1].name == "dark"
    project.classes.rename("dark", "dim")
    project.classes.recolor("dim", "#123456")
    assert panel.page.scene.cell_captions[1].name == "dim"
    assert panel.page.scene.cell_captions[1].color == "#123456"
    project.add("third", *squares(5), axes="yx")
    assert len(panel.view.listed) == 72
    panel.close()
    project.annotate("left", 3, "bright")
    assert panel.page.scene.cell_captions[2].name == ""


def test_without_images_the_panel_explains_how_to_add_some(empty):
    panel = GalleryPanel(empty)
    assert "add_images" in panel.hint.value
    assert (panel.hint.layout.display, panel.body.layout.display) == ("block", "none")
    empty.add("left", *squares(0), axes="yx")
    assert (panel.hint.layout.display, panel.body.layout.display) == ("none", "flex")
    assert len(shown(panel)) == 24
    assert "Name the first class" in panel.progress_text.value


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_shown(panel, project, monkeypatch):
    (broken,) = project.pair("left").levels
    whole = PyramidLevel.read

    def torn(self, *window):
        if self is broken:
            raise OSError("chunk 3 is torn")
        return whole(self, *window)

    monkeypatch.setattr(PyramidLevel, "read", torn)
    panel = ordered(GalleryPanel(project), "position")
    assert "left cannot be shown" in panel.page.status.text
    assert "torn" in panel.page.status.text
    assert not has_picture(panel, 8)
    assert has_picture(panel, 30)
    click(panel, 30)
    press(panel, "1")
    assert len(labels_of(project)) == 1
    monkeypatch.undo()
    press(panel, "g")
    assert panel.page.status.text == ""
    assert has_picture(panel, 8)


def test_a_replaced_mask_shows_its_own_objects(panel, project):
    _, mask = squares(0)
    mask[mask == 1] = 0
    project.replace_mask("left", mask)
    assert shown(panel)[0] == ("left", 2)


def test_a_volume_is_shown_by_its_middle_plane_or_its_maximum(tmp_path):
    image, mask = squares(0)
    deep = np.stack([image // 4, image // 2, image])
    project = Project(tmp_path / "deep.svetlana", classes=["a"])
    project.add("deep", deep, np.stack([mask, mask, mask]), axes="zyx")
    panel = ordered(GalleryPanel(project), "position")
    panel.display_bar.outlines.value = False
    assert panel.display_bar.depth.layout.display == ""
    assert not panel.display_bar.depth.value
    middle = cell_pixels(panel, 0)
    panel.display_bar.depth.value = True
    assert panel.page.depth == "maximum"
    assert cell_pixels(panel, 0).mean() > middle.mean() + 10
    press(panel, "m")
    assert panel.page.depth == "plane"
    assert (cell_pixels(panel, 0) == middle).all()


def test_many_objects_are_shown_page_by_page(tmp_path):
    rows, columns, step = 100, 200, 4
    mask = np.zeros((rows * step, columns * step), np.int32)
    mask.reshape(rows, step, columns, step)[:, 1:3, :, 1:3] = np.arange(1, 1 + rows * columns).reshape(
        rows, 1, columns, 1
    )
    project = Project(tmp_path / "many.svetlana", classes=["a"])
    project.add("many", (mask % 251).astype(np.uint8), mask, axes="yx")
    panel = GalleryPanel(project)
    seen = set(shown(panel))
    press(panel, "End")
    assert panel.view.page_number == 333
    assert len(shown(panel)) == 20_000 - 333 * 60
    assert not seen & set(shown(panel))


def test_every_command_has_a_button_with_a_tooltip_and_a_line_in_the_help(panel):
    for command in panel.command_bar.commands:
        assert command.tooltip in panel.command_bar.buttons[command.text].tooltip
        assert command.tooltip in panel.command_bar.help.value
    press(panel, "?")
    assert panel.command_bar.help.layout.display == "block"


class TestOnTheCanvas:
    """Messages to the browser."""

    @pytest.fixture
    def pages(self, monkeypatch):
        return listen(monkeypatch)

    @pytest.fixture
    def page(self, pages):
        pages.append(Page())
        return pages[0]

    def test_the_page_receives_the_pixels_of_the_scene(self, page, panel):
        panel.page.screen.redraw()
        panel.page.screen.canvas._client_ready()
        pixels = page.pixels(panel.page.screen.canvas.widget[PICTURES])
        np.testing.assert_array_equal(pixels[..., :3], panel.page.scene.pixels)

    def test_selecting_and_labeling_send_no_images(self, page, panel):
        panel.page.screen.canvas._client_ready()
        sent = len(page.pictures)
        click(panel, 3)
        press(panel, "1")
        assert len(page.pictures) == sent
        canvas = panel.page.screen.canvas
        assert {drawn for drawn, _, _ in page.messages[-1]} == {canvas.widget[MARKS].model_id, canvas.counter.model_id}
        assert any(name == "fillText" and "bright" in arguments for _, name, arguments in page.messages[-1])

    def test_a_page_opened_later_shows_everything(self, pages, panel):
        pages[:] = [Page()]
        panel.page.screen.canvas._client_ready()
        pixels = pages[0].pixels(panel.page.screen.canvas.widget[PICTURES])
        np.testing.assert_array_equal(pixels[..., :3], panel.page.scene.pixels)

    def test_a_high_resolution_screen_gets_its_own_pixels(self, page, panel):
        panel.page.screen.pointer.dpr = 2.0
        surface = panel.page.screen.canvas
        height, width = panel.page.grid.size
        assert (surface.widget.height, surface.widget.width) == (2 * height, 2 * width)
        assert surface.widget.layout.width == f"{width}px"
        assert panel.page.scene.pixels.shape == (2 * height, 2 * width, 3)
        assert surface.is_final, "everything was sent again after the resize"
