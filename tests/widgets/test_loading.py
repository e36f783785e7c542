"""Reading beside the loop: what is wanted first, what is expected after it, what is broken not again and again."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field

import dask.array as da
import numpy as np
import pytest

from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.loading import BackgroundLoader
from svetlana_jupyter.widgets.viewer import Viewer


@dataclass(frozen=True)
class Part:
    """A piece that notes when it is loaded, and may wait or fail."""

    name: str
    loaded: list = field(compare=False)
    gate: threading.Event | None = field(default=None, compare=False)
    error: Exception | None = field(default=None, compare=False)

    def load(self):
        if self.gate is not None:
            assert self.gate.wait(30)
        self.loaded.append(self.name)
        if self.error is not None:
            raise self.error


def run(scenario):
    """Run a scenario with a loader; it is given the loader and a way to wait until something is so."""

    async def inside():
        happened = asyncio.Event()
        on_loaded, errors = [], []

        def note(list_):
            def noted(*what):
                list_.append(what)
                happened.set()

            return noted

        loader = BackgroundLoader(note(on_loaded), note(errors))

        async def until(so):
            while not so():
                happened.clear()
                await asyncio.wait_for(happened.wait(), 30)

        await scenario(loader, until, on_loaded, errors)
        loader.close()

    asyncio.run(inside())


def test_what_the_screen_waits_for_comes_before_what_it_may_show_next():
    loaded, gate = [], threading.Event()

    async def scenario(loader, until, on_loaded, errors):
        loader.load_visible([Part("first", loaded, gate), Part("second", loaded, gate)])
        loader.expect([Part("next", loaded)])
        loader.load_visible([Part("third", loaded), Part("fourth", loaded), Part("fifth", loaded)])
        gate.set()
        await until(lambda: len(on_loaded) == 3)
        assert {"first", "second", "third", "fourth", "fifth"} <= set(loaded)
        # On two threads, "next" begins only when at least four of the five others have ended.
        assert "next" not in loaded[:4]
        assert not loader.busy

    run(scenario)


def test_what_is_not_wanted_any_more_is_not_loaded():
    loaded, gate = [], threading.Event()

    async def scenario(loader, until, on_loaded, errors):
        loader.load_visible([Part(f"old {i}", loaded, gate) for i in range(5)])
        loader.load_visible([Part("new", loaded)])
        gate.set()
        await until(lambda: on_loaded)
        assert "new" in loaded and set(loaded) <= {"old 0", "old 1", "new"}

    run(scenario)


def test_a_piece_that_cannot_be_read_is_reported_once_and_tried_again_when_asked():
    loaded = []
    part = Part("broken", loaded, error=OSError("chunk 7"))

    async def scenario(loader, until, on_loaded, errors):
        loader.load_visible([part])
        await until(lambda: errors)
        assert str(errors[0][0]) == "chunk 7" and not loader.busy
        loader.load_visible([part])
        loader.retry_failed()
        loader.load_visible([part])
        await until(lambda: len(errors) == 2)
        assert loaded == ["broken"] * 2

    run(scenario)


def test_without_a_loop_nothing_is_read_behind_ones_back():
    loaded = []
    loader = BackgroundLoader(lambda: None, lambda error: None)
    loader.load_visible([Part("a", loaded)])
    loader.expect([Part("b", loaded)])
    loader.close()
    assert loaded == []


@pytest.fixture
def large(tmp_path):
    """A project with an image that takes long to read as a whole."""
    mask = np.zeros((3000, 3000), np.uint16)
    for object in range(1, 101):
        y, x = np.array(divmod(object - 1, 10)) * 300 + 100
        mask[y : y + 60, x : x + 60] = object
    made = Project(tmp_path / "large.svetlana", classes=["a"])
    made.add("large", da.from_array(mask * np.uint16(3), chunks=500), da.from_array(mask, chunks=500), axes="yx")
    made.objects("large")
    return made


def in_a_loop(project, scenario):
    """Run a scenario in a loop; it is given a viewer and a way to wait for what the viewer draws."""

    async def inside():
        viewer = Viewer(project)
        drawn = asyncio.Event()
        paint = viewer._surface.paint

        def painted(*arguments, **options):
            paint(*arguments, **options)
            asyncio.get_running_loop().call_soon(drawn.set)

        viewer._surface.paint = painted

        async def until(so):
            while not so():
                drawn.clear()
                await asyncio.wait_for(drawn.wait(), 30)

        await until(lambda: viewer.scene is not None)
        await scenario(viewer, until)
        viewer.close()

    asyncio.run(inside())


def test_a_large_image_is_drawn_at_once_and_filled_in_while_keys_are_heard(large):
    async def scenario(viewer, until):
        assert viewer.scene.missing and viewer.scene.object_at(*viewer.view.to_screen(130, 130)) == 0
        await until(lambda: not viewer.scene.missing)
        assert viewer.scene.image.pixels.max() == 255
        assert viewer.scene.object_at(*viewer.view.to_screen(130, 130)) == 1
        await until(lambda: viewer._surface.settled)

    in_a_loop(large, scenario)


def test_the_next_object_of_the_queue_is_read_before_it_is_shown(large):
    async def scenario(viewer, until):
        await until(lambda: not viewer.scene.missing)
        viewer.memory_mb = 0  # forget what the whole image has brought
        viewer.memory_mb = 100
        viewer.show("large", 5)
        await until(lambda: viewer.scene.selection is not None)
        assert viewer._open_images.ahead("large", 88, viewer.view)
        viewer.prefetch([("large", 88), ("elsewhere", 1)])
        loop = asyncio.get_running_loop()
        end = loop.time() + 30
        while viewer._open_images.ahead("large", 88, viewer.view) and loop.time() < end:
            await asyncio.wait_for(asyncio.shield(loop.run_in_executor(None, lambda: None)), 30)
        assert not viewer._open_images.ahead("large", 88, viewer.view)
        assert viewer.selected == 5

    in_a_loop(large, scenario)
