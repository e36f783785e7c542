"""State of the viewer: consistent for every observer, and shared with a viewer without traces."""

from __future__ import annotations

import asyncio

import pytest

from svetlana_jupyter.core.display.viewport import Viewport
from svetlana_jupyter.widgets.viewer.viewer import Viewer
from svetlana_jupyter.widgets.viewer.viewer_model import ViewerModel
from tests.widgets.viewer.test_viewer import click, middle

SIZE = (520, 740)


@pytest.fixture
def model():
    return ViewerModel(SIZE)


def test_observers_of_the_selection_find_everything_up_to_date(model):
    seen = []
    model.image, model.menu = "left", (3, 4)
    for _ in range(2):
        model.observe(lambda _: seen.append((model.selection_id, model.selected, model.menu)), "selection")
    model.selection = (7, 9)
    assert seen == [(("left", -1), 0, None)] * 2


def test_two_selections_of_several_objects_never_have_the_same_identifier(model):
    model.image = "left"
    identifiers = []
    for labels in ((1, 2), (1, 3), (1, 2)):
        model.selection = labels
        identifiers.append(model.selection_id)
    assert len(set(identifiers)) == 3


def test_without_an_open_image_the_view_stays(model):
    before = model.view
    model.zoom(2)
    model.fit()
    model.step_plane(1)
    model.plane = 5
    assert (model.view, model.plane, model.view_requests) == (before, 0, 0)


def test_an_equal_view_is_requested_again(model):
    model.shape = (64, 96)
    model.fit()
    assert model.view == Viewport.fitted((64, 96), SIZE)
    model.fit()
    assert model.view_requests == 2


def test_only_a_changed_picture_is_a_new_frame(project):
    viewer = Viewer(project)
    frame = viewer.screen.canvas.frame
    viewer.model.set_view(viewer.model.view)
    assert viewer.screen.canvas.frame == frame
    viewer.model.set_view(viewer.model.view.zoomed(2))
    assert viewer.screen.canvas.frame == frame + 1


def test_a_program_selects_from_the_next_frame_on_and_a_click_at_once(project):
    async def select():
        viewer = Viewer(project)
        while viewer.model.scene is None or viewer.model.scene.missing:
            await asyncio.sleep(0)
        viewer.model.selected = 5
        shown = [viewer.screen.canvas.shown]
        click(viewer, *middle(6))
        shown.append(viewer.screen.canvas.shown)
        viewer.close()
        return shown

    assert asyncio.run(select()) == [None, ("left", 6)]


def test_a_closed_viewer_leaves_no_observers_of_its_own_on_a_shared_model(project):
    model = ViewerModel(SIZE)
    viewer = Viewer(project, SIZE, model)
    frame = viewer.screen.canvas.frame
    viewer.close()
    model.selection = (3,)
    model.overlay = "off"
    assert viewer.screen.canvas.frame == frame
