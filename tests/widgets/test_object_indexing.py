"""Objects of a huge image are found while one looks around."""

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


def test_the_picture_does_not_wait_for_the_objects_and_a_sentence_says_how_far_they_are(project, monkeypatch):
    monkeypatch.setattr(indexing, "_LARGE", 1)
    begun, go_on = threading.Event(), threading.Event()
    find = catalog.index_objects

    def slowly(mask, progress):
        progress(1, 4)
        begun.set()
        assert go_on.wait(30)
        return find(mask, progress)

    monkeypatch.setattr(catalog, "index_objects", slowly)

    async def look():
        said, told = [], asyncio.Event()

        def note(change):
            said.append(viewer.status.text)
            told.set()

        viewer = Viewer(project)
        viewer.status.observe(note, "value")
        assert await asyncio.to_thread(begun.wait, 30)
        while viewer.scene is None or not said:
            told.clear()
            await asyncio.sleep(0)
        assert said == ["Finding the objects of left: 25 %. You can look around meanwhile."]
        assert viewer.scene.object_at(*viewer.view.to_screen(8, 8)) == 1
        go_on.set()
        while said[-1]:
            told.clear()
            await asyncio.wait_for(told.wait(), 30)
        viewer.show("left", 3)
        assert viewer.selected == 3

    asyncio.run(look())


@pytest.fixture
def slow(monkeypatch):
    """Objects are found only once this is set."""
    go_on, find = threading.Event(), catalog.index_objects

    def slowly(mask, progress):
        progress(1, 4)
        assert go_on.wait(30)
        return find(mask, progress)

    monkeypatch.setattr(catalog, "index_objects", slowly)
    return go_on


async def until(condition):
    """Let the loop go on until something is true."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        await asyncio.sleep(0)


def draw_box(viewer, top, left, bottom, right):
    viewer.draw_box((top, left), *viewer.view.to_screen(bottom, right))
    viewer.finish_lasso()


def test_a_lasso_before_the_objects_are_found_selects_when_they_are(project, slow):
    async def draw():
        panel = AnnotationPanel(project)
        viewer = panel.viewer
        draw_box(viewer, 0, 0, 16, 48)
        assert viewer.selection == () and not project.images.is_indexed("left"), "nothing waits for it"
        await until(lambda: "25 %" in viewer.status.text)
        assert viewer.status.text == "Finding the objects of left: 25 %. What you drew selects them then."
        slow.set()
        await until(lambda: viewer.selection)
        assert viewer.selection == (1, 2, 3)
        assert viewer.status.text == "" and "3 objects in left are selected" in panel.status.text
        panel.close()

    asyncio.run(draw())


def test_a_click_behind_a_lasso_that_waits_stands(project, slow):
    async def draw():
        viewer = Viewer(project)
        await until(lambda: viewer.scene is not None and not viewer.scene.missing)
        draw_box(viewer, 0, 0, 16, 48)
        viewer.select_at(*viewer.view.to_screen(24, 24))
        assert viewer.selected == 8
        slow.set()
        await until(lambda: not viewer.indexing.is_waiting)
        assert viewer.selection == (8,)
        viewer.close()

    asyncio.run(draw())


def test_what_was_said_before_the_objects_are_found_is_written_in_its_order(project, slow):
    async def label():
        panel = AnnotationPanel(project)
        viewer = panel.viewer
        await until(lambda: viewer.scene is not None and not viewer.scene.missing)
        for at, key in (((8, 8), "1"), ((8, 24), "2"), ((8, 40), "1")):
            viewer.select_at(*viewer.view.to_screen(*at))
            viewer.press(key, viewer.picked)
        viewer.press("u", viewer.picked)
        assert len(project.annotations.table()) == 0 and viewer.status.text.endswith("What you said is written then.")
        slow.set()
        await until(lambda: len(project.annotations.table()) == 4)
        log = project.annotations.table()
        assert list(log["action"]) == ["label", "label", "label", "undo"]
        assert list(log["object"][:3]) == [1, 2, 3]
        assert project.annotations.class_counts().to_dict() == {"bright": 1, "dark": 1}
        panel.close()

    asyncio.run(label())


def test_the_queue_and_the_gallery_come_when_the_objects_of_all_images_are_found(project, slow):
    async def take():
        panel, gallery = AnnotationPanel(project), GalleryPanel(project)
        panel.press("n", None)
        assert panel.shown is None
        assert gallery.page.words == "The objects are being found." and not gallery.page.objects
        await until(lambda: "The next object comes then." in panel.viewer.status.text)
        slow.set()
        await until(lambda: panel.shown and gallery.page.objects)
        assert len(gallery.page.objects) == 48 and gallery.page.words == ""
        assert panel.shown in gallery.page.objects
        panel.close()
        gallery.close()

    asyncio.run(take())


def test_objects_that_cannot_be_found_are_said_and_what_waited_is_left_out(project, monkeypatch):
    def torn(mask, progress):
        raise OSError("it is torn")

    monkeypatch.setattr(catalog, "index_objects", torn)

    async def draw():
        viewer = Viewer(project)
        draw_box(viewer, 0, 0, 16, 48)
        await until(lambda: "cannot be found" in viewer.status.text)
        assert "The objects of left cannot be found (it is torn)." in viewer.status.text
        assert not viewer.indexing.is_waiting and viewer.selection == ()
        monkeypatch.undo()
        draw_box(viewer, 0, 0, 16, 48)
        await until(lambda: viewer.selection == (1, 2, 3))
        assert viewer.status.text == ""
        viewer.close()

    asyncio.run(draw())


def test_who_asks_for_objects_that_another_thread_is_finding_is_told_so(project, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    find = catalog.index_objects

    def slowly(mask, progress):
        begun.set()
        assert go_on.wait(30)
        return find(mask, progress)

    monkeypatch.setattr(catalog, "index_objects", slowly)
    monkeypatch.setattr(catalog, "LOCK_WAIT_SECONDS", 0.01)
    found = []
    thread = threading.Thread(target=lambda: found.append(project.objects("left")))
    thread.start()
    assert begun.wait(30)
    with pytest.raises(ProjectError, match="objects of 'left' are still being indexed"):
        project.objects("left")
    go_on.set()
    thread.join(30)
    assert project.objects("left") is found[0] and np.array_equal(found[0].index, range(1, 25))
