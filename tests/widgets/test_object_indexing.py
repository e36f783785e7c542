"""Indexing of large images in the background."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project import image_collection as catalog
from svetlana_jupyter.widgets import object_indexing as indexing
from svetlana_jupyter.widgets.annotation_panel import AnnotationPanel
from svetlana_jupyter.widgets.gallery.gallery_panel import GalleryPanel
from svetlana_jupyter.widgets.viewer.viewer import Viewer
from tests.blocking import block


def report_progress(mask, progress) -> None:
    progress(1, 4)


def test_the_image_is_drawn_before_indexing_ends_and_the_progress_is_displayed(project, monkeypatch):
    monkeypatch.setattr(indexing, "_LARGE", 1)
    begun, go_on = block(monkeypatch, catalog, "index_objects", report_progress)

    async def look():
        texts, changed = [], asyncio.Event()

        def note(change):
            texts.append(viewer.status.text)
            changed.set()

        viewer = Viewer(project)
        viewer.status.observe(note, "value")
        assert await asyncio.to_thread(begun.wait, 30)
        while viewer.model.scene is None or not texts:
            changed.clear()
            await asyncio.sleep(0)
        assert texts == ["Finding the objects of left: 25 %. You can keep browsing."]
        assert viewer.model.scene.object_at(*viewer.model.view.to_screen(8, 8)) == 1
        go_on.set()
        while texts[-1]:
            changed.clear()
            await asyncio.wait_for(changed.wait(), 30)
        viewer.show("left", 3)
        assert viewer.model.selected == 3

    asyncio.run(look())


@pytest.fixture
def slow(monkeypatch):
    """Indexing waits until this event is set."""
    return block(monkeypatch, catalog, "index_objects", report_progress)[1]


async def until(condition):
    """Run the loop until a condition is true."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        await asyncio.sleep(0)


def draw_box(viewer, top, left, bottom, right):
    viewer.selector.draw_box((top, left), *viewer.model.view.to_screen(bottom, right))
    viewer.selector.finish_lasso()


def test_a_lasso_drawn_before_indexing_selects_afterwards(project, slow):
    async def draw():
        panel = AnnotationPanel(project)
        viewer = panel.viewer
        draw_box(viewer, 0, 0, 16, 48)
        assert viewer.model.selection == ()
        assert not project.images.is_indexed("left"), "drawing does not wait for indexing"
        await until(lambda: "25 %" in viewer.status.text)
        assert viewer.status.text == "Finding the objects of left: 25 %. The region is selected afterwards."
        slow.set()
        await until(lambda: viewer.model.selection)
        assert viewer.model.selection == (1, 2, 3)
        assert viewer.status.text == ""
        assert "3 objects in left selected" in panel.status.text
        panel.close()

    asyncio.run(draw())


def test_a_click_after_a_waiting_lasso_prevails(project, slow):
    async def draw():
        viewer = Viewer(project)
        await until(lambda: viewer.model.scene is not None and not viewer.model.scene.missing)
        draw_box(viewer, 0, 0, 16, 48)
        viewer.selector.select_at(*viewer.model.view.to_screen(24, 24))
        assert viewer.model.selected == 8
        slow.set()
        await until(lambda: not viewer.indexing.is_waiting)
        assert viewer.model.selection == (8,)
        viewer.close()

    asyncio.run(draw())


def test_annotations_made_before_indexing_are_saved_in_their_order(project, slow):
    async def label():
        panel = AnnotationPanel(project)
        viewer = panel.viewer
        await until(lambda: viewer.model.scene is not None and not viewer.model.scene.missing)
        for at, key in (((8, 8), "1"), ((8, 24), "2"), ((8, 40), "1")):
            viewer.selector.select_at(*viewer.model.view.to_screen(*at))
            viewer.screen.handle_key(key, viewer.model.selection_id)
        viewer.screen.handle_key("u", viewer.model.selection_id)
        assert len(project.annotations.table()) == 0
        assert viewer.status.text.endswith("Your annotation is saved afterwards.")
        slow.set()
        await until(lambda: len(project.annotations.table()) == 4)
        log = project.annotations.table()
        assert list(log["action"]) == ["label", "label", "label", "undo"]
        assert list(log["object"][:3]) == [1, 2, 3]
        assert project.annotations.class_counts().to_dict() == {"bright": 1, "dark": 1}
        panel.close()

    asyncio.run(label())


def test_queue_and_gallery_appear_once_all_images_are_indexed(project, slow):
    async def take():
        panel, gallery = AnnotationPanel(project), GalleryPanel(project)
        panel.handle_key("n", None)
        assert panel.shown is None
        assert gallery.page.message == "The objects are being indexed."
        assert not gallery.page.objects
        await until(lambda: "The next object is shown afterwards." in panel.viewer.status.text)
        slow.set()
        await until(lambda: panel.shown and gallery.page.objects)
        assert len(gallery.page.objects) == 48
        assert gallery.page.message == ""
        assert panel.shown in gallery.page.objects
        panel.close()
        gallery.close()

    asyncio.run(take())


def test_a_failed_indexing_is_reported_and_its_waiting_actions_are_dropped(project, monkeypatch):
    def torn(mask, progress):
        raise OSError("it is torn")

    monkeypatch.setattr(catalog, "index_objects", torn)

    async def draw():
        viewer = Viewer(project)
        draw_box(viewer, 0, 0, 16, 48)
        await until(lambda: "cannot be found" in viewer.status.text)
        assert "The objects of left cannot be found (it is torn)." in viewer.status.text
        assert not viewer.indexing.is_waiting
        assert viewer.model.selection == ()
        monkeypatch.undo()
        draw_box(viewer, 0, 0, 16, 48)
        await until(lambda: viewer.model.selection == (1, 2, 3))
        assert viewer.status.text == ""
        viewer.close()

    asyncio.run(draw())


def test_asking_for_objects_that_another_thread_is_indexing_raises_an_error(project, monkeypatch):
    begun, go_on = block(monkeypatch, catalog, "index_objects")
    monkeypatch.setattr(catalog, "LOCK_WAIT_SECONDS", 0.01)
    found = []
    thread = threading.Thread(target=lambda: found.append(project.objects("left")))
    thread.start()
    assert begun.wait(30)
    with pytest.raises(ProjectError, match="objects of 'left' are still being indexed"):
        project.objects("left")
    go_on.set()
    thread.join(30)
    assert project.objects("left") is found[0]
    assert np.array_equal(found[0].index, range(1, 25))
