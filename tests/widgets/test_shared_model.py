"""One selection for all views of a project: images, galleries, and the panels of other cells."""

from __future__ import annotations

import gc
import weakref

import pytest

from svetlana_jupyter.core.annotations import ObjectId
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.annotation_panel import AnnotationPanel
from svetlana_jupyter.widgets.gallery.gallery_panel import GalleryPanel
from svetlana_jupyter.widgets.viewer.viewer import Viewer
from svetlana_jupyter.widgets.viewer.viewer_model import SharedModel, ViewerModel, shared_model
from tests.widgets.conftest import squares


@pytest.fixture
def two_viewers(project):
    return Viewer(project), Viewer(project)


def test_a_viewer_opens_the_image_of_the_object_that_another_one_shows(two_viewers, project):
    first, second = two_viewers
    first.show("right", 5)
    assert (second.model.image, second.model.selection, second.model.selected) == ("right", (5,), 5)
    assert shared_model(project).selection == (ObjectId("right", 5),)
    assert second.model.selection_id == first.model.selection_id == ("right", 5)


def test_a_viewer_stays_where_it_is_while_the_object_is_on_its_screen(two_viewers):
    first, second = two_viewers
    view = second.model.view
    first.show("left", 24)
    assert second.model.selected == 24
    assert second.model.view == view
    second.show("left", 1)
    second.model.zoom(8, (0, 0))
    first.show("left", 24)
    assert second.model.view.scale > view.scale
    y, x = second.model.view.to_screen(3 * 16 + 8.5, 5 * 16 + 8.5)
    assert 0 <= y < second.model.view.size[0]
    assert 0 <= x < second.model.view.size[1]


def test_objects_of_several_images_are_one_selection(two_viewers, project):
    first, second = two_viewers
    shared_model(project).selection = (("left", 1), ("right", 2), ("right", 3), ("left", 1))
    assert shared_model(project).selection == (("left", 1), ("right", 2), ("right", 3))
    assert (first.model.selection, first.model.selected) == ((1,), 0), "no single object is selected"
    second.model.image = "right"
    assert second.model.selection == (2, 3)
    assert len(shared_model(project).selection) == 3, "part of the selection is displayed"
    assert first.model.selection_id == second.model.selection_id
    first.model.selection = ()
    assert second.model.selection == ()


def test_an_object_that_is_no_longer_displayed_is_deselected(project):
    viewer = Viewer(project)
    viewer.show("left", 3)
    viewer.model.image = "right"
    assert shared_model(project).selection == ()


def test_one_key_labels_the_selected_objects_of_all_images_in_one_edit(project):
    panel = AnnotationPanel(project)
    shared_model(project).selection = (("left", 1), ("right", 2), ("right", 3))
    assert "3 objects in 2 images selected" in panel.status.text
    panel.viewer.screen.handle_key("2", panel.shown)
    assert project.annotations.class_counts()["dark"] == 3
    project.undo()
    assert project.annotations.class_counts().sum() == 0


def test_a_gallery_selects_what_an_image_selects_and_the_other_way_round(project):
    panel, gallery = AnnotationPanel(project), GalleryPanel(project)
    gallery.filter_bar.order.value = "position"
    panel.viewer.show("left", 3)
    assert gallery.page.selected == [("left", 3)]
    gallery.page.select(gallery.page.selection.only(30))
    assert panel.shown == gallery.page.objects[30] == ("right", 7)
    assert panel.viewer.model.image == "right"
    gallery.view.turn_to(0)
    assert panel.shown == ("right", 7), "the same page"


def test_a_gallery_turns_to_the_page_of_the_object_that_another_view_selects(project):
    gallery = GalleryPanel(project)
    gallery.filter_bar.order.value = "position"
    gallery.page.columns = 5
    assert gallery.view.pages.count > 1
    shared_model(project).selection = (("right", 24),)
    assert gallery.view.page_number == gallery.view.pages.count - 1
    assert gallery.page.selected == [("right", 24)]
    gallery.view.turn_to(0)
    assert shared_model(project).selection == (), "a key would label what is not on the page"


def test_the_objects_inside_a_lasso_fill_the_gallery(project):
    viewer, gallery = Viewer(project), GalleryPanel(project)
    viewer.selector.select_visible()
    assert len(viewer.model.selection) == 24
    assert gallery.view.listed == [("left", label) for label in range(1, 25)]
    assert gallery.page.selection.chosen == set(range(24))
    gallery.filter_bar.which.value = "all"
    assert len(gallery.view.listed) == 48
    assert shared_model(project).listed == ("", ())


def test_a_replaced_mask_deselects_its_objects_only(project):
    shared = shared_model(project)
    shared.selection = (("left", 1), ("right", 2))
    project.replace_mask("left", squares(0)[1][::-1].copy())
    assert shared.selection == (("right", 2),)


def test_the_shared_model_keeps_no_project_alive(squares_folder):
    project = Project(squares_folder)
    found = weakref.ref(project)
    assert shared_model(project) is shared_model(project)
    del project
    gc.collect()
    assert found() is None


def test_a_closed_model_no_longer_follows():
    shared = SharedModel()
    model = ViewerModel((10, 10), shared)
    model.image = "left"
    model.close()
    shared.selection = (("left", 1),)
    assert model.selection == ()


def test_the_selected_object_stays_on_the_page_when_pages_change_their_size(project):
    gallery = GalleryPanel(project)
    gallery.filter_bar.order.value = "position"
    shared_model(project).selection = (("right", 20),)
    for columns in (5, 6, 10, 5):
        gallery.page.columns = columns
        assert gallery.page.selected == [("right", 20)]
