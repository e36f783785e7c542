"""Objects of a huge image are found while one looks around."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project import catalog
from svetlana_jupyter.widgets import indexing
from svetlana_jupyter.widgets.viewer import Viewer


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


def test_who_asks_for_objects_that_another_thread_is_finding_is_told_so(project, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    find = catalog.index_objects

    def slowly(mask, progress):
        begun.set()
        assert go_on.wait(30)
        return find(mask, progress)

    monkeypatch.setattr(catalog, "index_objects", slowly)
    monkeypatch.setattr(catalog, "PATIENCE", 0.01)
    found = []
    thread = threading.Thread(target=lambda: found.append(project.objects("left")))
    thread.start()
    assert begun.wait(30)
    with pytest.raises(ProjectError, match="objects of 'left' are still being found"):
        project.objects("left")
    go_on.set()
    thread.join(30)
    assert project.objects("left") is found[0] and np.array_equal(found[0].index, range(1, 25))
