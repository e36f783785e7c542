"""Map of objects, tested by clicks, drags and keys: the project, the last scene, and what the browser is sent."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist, squareform

from svetlana_jupyter.core.annotations import ObjectId
from svetlana_jupyter.core.display.channels import rgb_of
from svetlana_jupyter.core.display.point_map import NEUTRAL
from svetlana_jupyter.core.display.scene import BRIGHT_INK, DARK_INK
from svetlana_jupyter.project.live import Live, LiveState
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.gallery.gallery_panel import GalleryPanel
from svetlana_jupyter.widgets.map_colors import COLORINGS, MapObjects
from svetlana_jupyter.widgets.map_panel import MapPanel
from svetlana_jupyter.widgets.viewer.viewer import Viewer
from tests.widgets.conftest import squares
from tests.widgets.page import Page, listen

NOW = object()


@pytest.fixture(autouse=True)
def on_demand(monkeypatch):
    """Update the live classifier only where a test asks for it: without an event loop, it would follow on a thread."""
    monkeypatch.setattr(Live, "start", lambda self: None)


@pytest.fixture(scope="session")
def featured_folder(trained_folder, tmp_path_factory):
    """A project of two images with predictions of a run, whose objects have features, made once."""
    made = Project(shutil.copytree(trained_folder, tmp_path_factory.mktemp("featured") / "squares.svetlana"))
    list(made.features.compute(lambda: False))
    return made.path


@pytest.fixture
def featured(featured_folder, tmp_path):
    """A copy of that project."""
    return Project(shutil.copytree(featured_folder, tmp_path / "featured.svetlana"))


@pytest.fixture
def panel(featured):
    return MapPanel(featured)


def send(panel, event, **content):
    panel.view.screen.pointer._handle_custom_msg({"event": event, **content}, [])


def number_of(panel, image, label):
    return int(panel.view.objects.find([(image, label)])[0])


def point(panel, image, label):
    row, column = panel.view.view.to_screen(*panel.view.points.points[number_of(panel, image, label)].tolist())
    return {"row": row, "column": column}


def click(panel, image, label, modifiers=""):
    send(panel, "pressed", **point(panel, image, label), button=0, modifiers=modifiers)
    send(panel, "released", **point(panel, image, label), time=1.0)


def drag(panel, *corners, modifiers=""):
    (row, column), *rest = corners
    send(panel, "pressed", row=row, column=column, button=0, modifiers=modifiers)
    for row, column in rest:
        send(panel, "moved", row=row, column=column)
    send(panel, "released", row=row, column=column, time=2.0)


def press(panel, key, shown=NOW, control=False):
    shown = panel.shown if shown is NOW else shown
    send(panel, "key_pressed", key=key, control=control, shift=False, shown=list(shown or []))


def around(panel, *objects, margin=12):
    """Return corners of a box on the screen around objects."""
    places = np.array([list(point(panel, *each).values()) for each in objects])
    low, high = places.min(axis=0) - margin, places.max(axis=0) + margin
    return (low[0], low[1]), (low[0], high[1]), (high[0], high[1]), (high[0], low[1])


def objects_of(panel):
    return list(panel.view.objects.ids(np.arange(len(panel.view.objects))))


def color_of(panel, image, label):
    styles = panel.view.styles
    return styles.colors[styles.codes[number_of(panel, image, label)]]


def unlabeled_pair(panel):
    """Return two objects with the greatest distance from each other on the map, of those without a label."""
    points, free = panel.view.points.points, np.setdiff1d(np.arange(48), panel.view.styles.labeled)
    return [objects_of(panel)[free[i]] for i in (points[free, 1].argmin(), points[free, 1].argmax())]


def test_every_object_has_a_place_and_the_color_of_its_class(panel, featured):
    assert len(panel.view.points.placed) == 48
    assert panel.view.scene.caption.startswith("Map · PCA of ")
    colors = {info.name: info.color for info in featured.classes}
    table = featured.predictions()
    for image, label in objects_of(panel):
        assert color_of(panel, image, label) == colors[table.loc[(image, label), "class"]]
    assert panel.view.objects.ids(panel.view.styles.labeled) == tuple(ObjectId("left", label) for label in range(1, 13))
    assert panel.view.scene.labeled is not None


def test_similar_objects_are_near_each_other(panel, featured):
    features = np.concatenate([image.read(slice(None)) for image in featured.features.matrix().images.values()])
    nearest = (squareform(pdist(features)) + 1e9 * np.eye(48)).argmin(axis=1)
    on_map = squareform(pdist(panel.view.points.points))
    assert on_map[np.arange(48), nearest].mean() < 0.7 * on_map.mean()


def test_a_click_selects_in_all_views_and_beside_all_points_nothing(panel, featured):
    gallery, viewer = GalleryPanel(featured), Viewer(featured)
    first, second = unlabeled_pair(panel)
    click(panel, *first)
    assert panel.view.shared.selection == (first,)
    viewer.model.image = first.image
    assert viewer.model.selected == first.label
    assert gallery.page.selected == [first]
    assert panel.view.scene.selection is not None
    click(panel, *second, modifiers="Shift")
    assert panel.view.shared.selection == (first, second)
    click(panel, *first, modifiers="Shift")
    assert panel.view.shared.selection == (second,)
    drag(panel, (2.0, 2.0))
    assert panel.view.shared.selection == ()
    assert panel.view.scene.selection is None


def test_a_selection_of_another_view_is_marked(panel, featured):
    first, _ = unlabeled_pair(panel)
    panel.view.shared.selection = (first,)
    row, column = (round(at) for at in point(panel, *first).values())
    marked = panel.view.scene.selection.codes
    assert marked[max(row - 14, 0) : row + 14, max(column - 14, 0) : column + 14].any()
    panel.view.shared.selection = (("left", 99),)
    assert panel.view.scene.selection is None, "an object that is not on the map"


@pytest.mark.parametrize("key", ["x", "l"])
def test_box_and_lasso_select_what_is_inside_and_list_it_in_the_gallery(panel, featured, key):
    gallery = GalleryPanel(featured)
    inside = [each for each in objects_of(panel) if panel.view.points.points[number_of(panel, *each), 1] < 400]
    box = around(panel, *inside, margin=2)
    expected = {
        each
        for each in objects_of(panel)
        if box[0][0] <= point(panel, *each)["row"] <= box[2][0]
        and box[0][1] <= point(panel, *each)["column"] <= box[2][1]
    }
    press(panel, key)
    drag(panel, *(box if key == "l" else (box[0], box[2])))
    assert set(panel.view.shared.selection) == expected
    assert len(expected) >= len(inside) > 2
    assert panel.view.lasso == ()
    assert set(gallery.page.objects) == expected
    press(panel, "Escape")
    assert panel.view.shared.selection == ()
    press(panel, "Escape")
    assert panel.view.tool == "move"


def test_one_key_labels_the_selection_in_one_edit_and_undo_reverts_it(panel, featured):
    press(panel, "a", control=True)
    assert len(panel.view.shared.selection) == 48
    press(panel, "2")
    assert featured.class_counts()["dark"] == 48
    log = featured.annotations.table()
    last = log[log["edit"] == log["edit"].iloc[-1]]
    assert len(last) == 48
    assert set(last["source"]) == {"map"}
    assert color_of(panel, "right", 1) == featured.classes.by_name("dark").color
    press(panel, "u")
    assert featured.class_counts()["dark"] == 6
    assert panel.status.text == "Undo: 48 objects."


def test_a_key_for_a_selection_that_is_no_longer_shown_labels_nothing(panel, featured):
    first, second = unlabeled_pair(panel)
    click(panel, *first)
    click(panel, *second)
    press(panel, "1", shown=first)
    assert featured.class_counts().sum() == 12
    assert panel.status.text.startswith("Key ignored")
    press(panel, "Enter")
    assert featured.class_counts().sum() == 13
    assert featured.labels().loc[second, "class"] == featured.predictions().loc[second, "predicted"]


def test_objects_of_the_test_set_are_gray_and_cannot_be_identified_until_they_are_annotated(featured):
    featured.test_set.draw(20, seed=1)
    panel = MapPanel(featured)
    hidden = next(each for each in featured.test_set.objects if featured.annotations.label_of(*each).action == "")
    for coloring in COLORINGS:
        panel.view.coloring = coloring
        assert color_of(panel, *hidden) == NEUTRAL or panel.view.styles.hidden[number_of(panel, *hidden)]
        row, column = (int(at) for at in point(panel, *hidden).values())
        code = panel.view.scene.dots.codes[row, column]
        assert tuple(panel.view.scene.dots.table[code][:3]) == (0x8C, 0x8C, 0x8C) or not is_on_top(panel, hidden)
    assert "test set" in panel.view.legend.value
    send(panel, "moved", **point(panel, *hidden))
    assert panel.view.scene.hint is None or str(hidden.label) not in panel.view.scene.hint.text.split()
    click(panel, *hidden)
    assert hidden not in panel.view.shared.selection
    press(panel, "a", control=True)
    assert hidden not in panel.view.shared.selection
    panel.view.shared.selection = (hidden,)
    assert panel.view.scene.selection is None, "its place would give away the class of its neighbors"
    press(panel, "1")
    assert featured.labels().loc[hidden, "class"] == "bright", "it can still be labeled"
    assert panel.view.scene.selection is not None
    panel.view.coloring = "label"
    assert color_of(panel, *hidden) == featured.classes.by_name("bright").color


def is_on_top(panel, object_id):
    """Return whether no other dot covers the center of an object's dot."""
    points = panel.view.points.points
    distances = np.hypot(*(points - points[number_of(panel, *object_id)]).T) * panel.view.view.scale
    return (distances < 12).sum() == 1


def test_brackets_change_the_coloring_and_the_legend_explains_it(panel, featured):
    assert panel.toolbar.coloring.value == "prediction"
    press(panel, "]")
    assert panel.view.coloring == panel.toolbar.coloring.value == "label"
    assert color_of(panel, "right", 3) == NEUTRAL
    assert "not labeled" in panel.view.legend.value
    press(panel, "]")
    probability = featured.probabilities("right")["probability"]
    codes = pd.Series({label: panel.view.styles.codes[number_of(panel, "right", label)] for label in probability.index})
    order = probability.sort_values().index
    assert codes[order].is_monotonic_increasing
    press(panel, "]")
    assert len({color_of(panel, "left", label) for label in range(1, 25)}) == 1
    assert color_of(panel, "left", 1) != color_of(panel, "right", 1)
    assert "left" in panel.view.legend.value
    press(panel, "]")
    press(panel, "[")
    assert panel.view.coloring == "image"


def test_names_are_escaped_in_the_legend(featured):
    featured.classes.rename("bright", "<b>bright</b>")
    panel = MapPanel(featured)
    assert "&lt;b&gt;bright&lt;/b&gt;" in panel.view.legend.value
    assert "<b>" not in panel.view.legend.value


def test_wheel_drag_and_keys_move_the_map_and_say_when_nothing_happens(panel):
    whole = panel.view.view
    first, _ = unlabeled_pair(panel)
    before = point(panel, *first)
    send(panel, "wheeled", delta=-300.0, **before)
    assert panel.view.view.scale == pytest.approx(2 * whole.scale)
    assert point(panel, *first) == pytest.approx(before)
    drag(panel, (100.0, 100.0), (130.0, 60.0))
    assert point(panel, *first) == pytest.approx({"row": before["row"] + 30, "column": before["column"] - 40})
    assert panel.view.shared.selection == ()
    press(panel, "f")
    assert panel.view.view == whole
    press(panel, "f")
    assert panel.status.text == "The whole map is visible."
    for _ in range(40):
        press(panel, "+")
    assert panel.status.text == "The map cannot be zoomed any further."
    press(panel, "ArrowLeft")
    assert panel.status.text != "The map cannot be zoomed any further."
    press(panel, "Q")
    assert panel.status.text == "The key Q has no effect here. Press ? for all keys."


def test_the_pointer_shows_name_class_and_thumbnail(panel, featured):
    first, _ = unlabeled_pair(panel)
    send(panel, "moved", **point(panel, *first))
    hint, picture = panel.view.scene.hint, panel.view.scene.picture
    assert hint.text.startswith(f"object {first.label} in {first.image} · ")
    assert picture.shape == (84, 84, 3)
    assert picture[42, 42].mean() > picture[4, 4].mean(), "the object is brighter than its surroundings"
    send(panel, "moved", row=2.0, column=2.0)
    assert panel.view.scene.hint is None


def test_new_labels_send_colors_only_and_a_drag_sends_no_picture(featured, monkeypatch):
    pages = listen(monkeypatch)
    pages.append(Page())
    panel = MapPanel(featured)
    raster, sent = panel.view.scene.raster, len(pages[0].pictures)
    featured.annotate("right", 1, "bright")
    assert panel.view.scene.raster is raster
    assert 1 <= len(pages[0].pictures) - sent <= 2, "dots, and those with a ring"
    row, column = (int(at) for at in point(panel, "right", 1).values())
    shown = pages[0].pixels(panel.view.screen.canvas.widget[0])[row, column]
    assert tuple(shown) == (*rgb_of(featured.classes.by_name("bright").color), 255)
    send(panel, "pressed", row=100.0, column=100.0, button=0)
    send(panel, "moved", row=106.0, column=100.0)
    sent = len(pages[0].pictures)
    for step in range(7, 20):
        send(panel, "moved", row=100.0 + step, column=100.0)
    assert len(pages[0].pictures) == sent


def test_a_hidden_map_computes_and_draws_nothing(panel, featured):
    scene = panel.view.scene
    panel.view.is_shown = False
    featured.annotate("right", 1, "bright")
    panel.view.shared.selection = (("left", 1),)
    assert panel.view.scene is scene
    panel.view.is_shown = True
    assert panel.view.scene is not scene
    assert panel.view.objects.find([("right", 1)])[0] in panel.view.styles.labeled


def test_a_map_without_images_or_features_says_so(empty, project, tmp_path):
    panel = MapPanel(empty)
    assert panel.hint.layout.display == "block"
    assert panel.view.scene.message == "Add images to see the map of their objects."
    panel = MapPanel(project)
    assert "0" in panel.view.scene.message
    assert panel.view.scene.caption == ""
    press(panel, "a", control=True)
    assert panel.shown is None
    press(panel, "1")
    assert panel.status.text.startswith("No object selected.")


def test_the_map_of_a_replaced_mask_shows_none_of_the_old_objects(panel, featured):
    for seed, name in enumerate(("left", "right")):
        mask = squares(seed)[1]
        featured.replace_mask(name, np.where(mask > 0, mask + 100, 0).astype(np.uint16))
        assert all(label > 100 for image, label in objects_of(panel) if image == name)
    assert len(panel.view.points.placed) == 0, "their features are not computed yet"
    assert panel.view.scene.message != ""


def test_features_that_arrive_later_are_shown(project):
    panel = MapPanel(project)
    assert len(panel.view.points.placed) == 0
    list(project.features.compute(lambda: False))
    project.live_state = LiveState(features_done=48, features_total=48)
    assert len(panel.view.points.placed) == 48
    assert panel.view.scene.message == ""


def test_umap_that_is_not_installed_leaves_the_map_and_says_how_to_install_it(panel, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    panel.toolbar.method.value = "UMAP"
    assert len(panel.view.points.placed) == 48
    assert panel.view.scene.caption.startswith("Map · PCA of ")
    assert "UMAP is not installed." in panel.view.scene.caption
    panel.toolbar.method.value = "PCA"
    assert "UMAP" not in panel.view.scene.caption


def test_size_resolution_and_theme_follow_the_page(panel):
    pointer = panel.view.screen.pointer
    pointer.width = 900
    assert panel.view.view.size[1] == 900
    pointer.dpr = 2.0
    assert panel.view.scene.dots.codes.shape == panel.view.view.device_size == (2 * panel.view.view.size[0], 1800)
    assert panel.view.scene.ink == DARK_INK
    pointer.dark = True
    assert panel.view.scene.ink == BRIGHT_INK
    pointer.height = 333
    assert panel.view.view.size == (333, 900)


def test_a_closed_panel_follows_nothing(panel, featured):
    scene = panel.view.scene
    panel.close()
    featured.annotate("right", 1, "bright")
    assert panel.view.scene is scene


def test_objects_are_found_by_image_and_label():
    objects = MapObjects({"a": pd.Index([2, 5, 9]), "none": pd.Index([], dtype=np.int64), "b": pd.Index([1, 5])})
    assert objects.find([("b", 5), ("a", 9), ("a", 2), ("a", 3), ("none", 1), ("gone", 1)]).tolist() == [4, 2, 0]
    assert objects.ids(np.array([0, 2, 3])) == (("a", 2), ("a", 9), ("b", 1))
    assert objects.find_in("a", np.array([10, 5, 0])).tolist() == [-1, 1, -1]
    assert MapObjects({}).find([("a", 1)]).tolist() == []
