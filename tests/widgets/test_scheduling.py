"""Background reading and the schedule of draws."""

from __future__ import annotations

import asyncio
import itertools
import threading
from dataclasses import dataclass, field

import dask.array as da
import numpy as np
import pytest

from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.scheduling import BackgroundLoader, Debounce, KeyPause, Throttle
from svetlana_jupyter.widgets.viewer.viewer import Viewer


@dataclass(frozen=True)
class Part:
    """A piece that records when it is read, and may wait or fail."""

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
    """Run a scenario with a loader; it receives the loader and a function that waits for a condition."""

    async def inside():
        happened = asyncio.Event()
        on_loaded, errors = [], []

        def note(list_):
            def append(*values):
                list_.append(values)
                happened.set()

            return append

        loader = BackgroundLoader(note(on_loaded), note(errors))

        async def until(so):
            while not so():
                happened.clear()
                await asyncio.wait_for(happened.wait(), 30)

        await scenario(loader, until, on_loaded, errors)
        loader.close()

    asyncio.run(inside())


def test_visible_pieces_are_read_before_expected_ones():
    loaded, gate = [], threading.Event()

    async def scenario(loader, until, on_loaded, errors):
        loader.load_visible([Part("first", loaded, gate), Part("second", loaded, gate)])
        loader.load_ahead([Part("next", loaded)])
        loader.load_visible([Part("third", loaded), Part("fourth", loaded), Part("fifth", loaded)])
        gate.set()
        await until(lambda: len(on_loaded) == 3)
        assert {"third", "fourth", "fifth"} <= set(loaded)  # the thread of "first" or "second" may wake late
        # On two threads, "next" begins only when at least four of the five others have ended.
        assert "next" not in loaded[:4]
        assert not loader.busy

    run(scenario)


def test_pieces_that_are_no_longer_visible_are_not_read():
    loaded, gate = [], threading.Event()

    async def scenario(loader, until, on_loaded, errors):
        loader.load_visible([Part(f"old {i}", loaded, gate) for i in range(5)])
        loader.load_visible([Part("new", loaded)])
        gate.set()
        await until(lambda: on_loaded)
        assert "new" in loaded
        assert set(loaded) <= {"old 0", "old 1", "new"}

    run(scenario)


def test_an_unreadable_piece_is_reported_once_and_retried_on_request():
    loaded = []
    part = Part("broken", loaded, error=OSError("chunk 7"))

    async def scenario(loader, until, on_loaded, errors):
        loader.load_visible([part])
        await until(lambda: errors)
        assert str(errors[0][0]) == "chunk 7"
        assert not loader.busy
        loader.load_visible([part])
        loader.retry_failed()
        loader.load_visible([part])
        await until(lambda: len(errors) == 2)
        assert loaded == ["broken"] * 2

    run(scenario)


def test_a_closed_loader_reads_nothing():
    async def scenario(loader, until, on_loaded, errors):
        loader.close()
        loader.load_visible([Part("late", [])])
        loader.load_ahead([Part("later", [])])
        assert not loader._running

    run(scenario)


def test_without_a_loop_nothing_is_read_in_the_background():
    loaded = []
    loader = BackgroundLoader(lambda: None, lambda error: None)
    loader.load_visible([Part("a", loaded)])
    loader.load_ahead([Part("b", loaded)])
    loader.close()
    assert loaded == []


@pytest.fixture
def large(tmp_path):
    """A project with an image that takes long to read as a whole."""
    mask = np.zeros((3000, 3000), np.uint16)
    for label in range(1, 101):
        y, x = np.array(divmod(label - 1, 10)) * 300 + 100
        mask[y : y + 60, x : x + 60] = label
    made = Project(tmp_path / "large.svetlana", classes=["a"])
    made.add("large", da.from_array(mask * np.uint16(3), chunks=500), da.from_array(mask, chunks=500), axes="yx")
    made.objects("large")
    return made


def in_a_loop(project, scenario):
    """Run a scenario in a loop; it receives a viewer and a function that waits for a condition after each frame."""

    async def inside():
        viewer = Viewer(project)
        drawn = asyncio.Event()
        paint = viewer.screen.canvas.paint

        def painted(*arguments, **options):
            paint(*arguments, **options)
            asyncio.get_running_loop().call_soon(drawn.set)

        viewer.screen.canvas.paint = painted

        async def until(so):
            while not so():
                drawn.clear()
                await asyncio.wait_for(drawn.wait(), 30)

        await until(lambda: viewer.model.scene is not None)
        await scenario(viewer, until)
        viewer.close()

    asyncio.run(inside())


def test_a_large_image_is_drawn_at_once_and_filled_in_later(large):
    async def scenario(viewer, until):
        assert viewer.model.scene.missing
        assert viewer.model.scene.object_at(*viewer.model.view.to_screen(130, 130)) == 0
        await until(lambda: not viewer.model.scene.missing)
        assert viewer.model.scene.image.pixels.max() == 255
        assert viewer.model.scene.object_at(*viewer.model.view.to_screen(130, 130)) == 1
        await until(lambda: viewer.screen.canvas.is_final)

    in_a_loop(large, scenario)


def test_the_next_object_of_the_queue_is_read_before_it_is_shown(large):
    async def scenario(viewer, until):
        await until(lambda: not viewer.model.scene.missing)
        viewer.memory_mb = 0  # forget what the whole image has brought
        viewer.memory_mb = 100
        viewer.show("large", 5)
        await until(lambda: viewer.model.scene.selection is not None)
        assert viewer._open_images.pieces_ahead("large", 88, viewer.model.view)
        viewer.prefetch([("large", 88), ("elsewhere", 1)])
        loop = asyncio.get_running_loop()
        end = loop.time() + 30
        while viewer._open_images.pieces_ahead("large", 88, viewer.model.view) and loop.time() < end:
            await asyncio.wait_for(asyncio.shield(loop.run_in_executor(None, lambda: None)), 30)
        assert not viewer._open_images.pieces_ahead("large", 88, viewer.model.view)
        assert viewer.model.selected == 5

    in_a_loop(large, scenario)


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time passes only when it waits, so that no test depends on how busy the machine is."""

    def __init__(self):
        super().__init__()
        self.now = 0.0

    def time(self):
        return self.now

    def _run_once(self):
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0].when())
        super()._run_once()


@pytest.fixture
def loop():
    made = Clock()
    yield made
    made.close()


def test_without_a_loop_everything_happens_at_once():
    drawn = []
    Throttle(lambda: drawn.append("drawn")).request()
    Debounce(lambda: drawn.append("rested")).restart()
    KeyPause(lambda: drawn.append("written")).restart()
    assert drawn == ["drawn", "rested", "written"]


def test_many_requests_make_one_draw(loop):
    drawn = []
    pace = Throttle(lambda: drawn.append(loop.time()))

    async def ask():
        for _ in range(100):
            pace.request()
        assert drawn == []
        await asyncio.sleep(1)

    loop.run_until_complete(ask())
    assert len(drawn) == 1


def test_a_draw_begins_a_pause_after_the_end_of_the_last(loop):
    spans = []

    def slow():
        start = loop.time()
        loop.now += 0.2
        spans.append((start, loop.time()))

    pace = Throttle(slow, interval=0.05)

    async def move():
        for _ in range(60):
            pace.request()
            await asyncio.sleep(1 / 60)

    loop.run_until_complete(move())
    assert len(spans) > 2
    assert all(start - end >= 0.05 - 1e-9 for (_, end), (start, _) in itertools.pairwise(spans))


def test_the_last_request_is_always_drawn(loop):
    state, drawn = {"at": 0}, []
    pace = Throttle(lambda: drawn.append(state["at"]))

    async def move():
        for state["at"] in range(20):
            pace.request()
            await asyncio.sleep(0.01)
        await asyncio.sleep(1)

    loop.run_until_complete(move())
    assert drawn[-1] == 19


def test_a_draw_that_fails_does_not_stop_the_next(loop):
    drawn = []

    def draw():
        drawn.append(loop.time())
        if len(drawn) == 1:
            raise ValueError("no")

    pace = Throttle(draw)
    loop.set_exception_handler(lambda *_: None)

    async def ask():
        pace.request()
        await asyncio.sleep(0.1)
        pace.request()
        await asyncio.sleep(0.1)

    loop.run_until_complete(ask())
    assert len(drawn) == 2


def test_a_request_left_in_a_loop_that_ended_does_not_block_the_next_loop(loop):
    drawn = []
    pace = Throttle(lambda: drawn.append(True))

    async def ask(wait):
        pace.request()
        await asyncio.sleep(wait)

    ended = Clock()
    ended.run_until_complete(ask(0.02))
    ended.run_until_complete(ask(0))
    ended.close()
    count = len(drawn)
    loop.run_until_complete(ask(1))
    assert len(drawn) == count + 1


def test_debounced_call_comes_once_after_the_last_restart(loop):
    rested = []
    rest = Debounce(lambda: rested.append(loop.time()), delay=0.15)

    async def move():
        for _ in range(10):
            rest.restart()
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)

    loop.run_until_complete(move())
    assert rested == pytest.approx([0.9 + 0.15])


def test_a_longer_delay_is_not_shortened_by_another_restart(loop):
    rested = []
    rest = Debounce(lambda: rested.append(loop.time()), delay=0.1)

    async def move():
        rest.restart(0.4)
        await asyncio.sleep(0.05)
        rest.restart()
        await asyncio.sleep(1)
        rest.restart()
        await asyncio.sleep(1)

    loop.run_until_complete(move())
    assert rested == pytest.approx([0.4, 1.05 + 0.1])


def test_what_was_requested_is_drawn_at_once_for_a_key_and_only_once(loop):
    drawn = []
    pace = Throttle(lambda: drawn.append(loop.time()))

    async def press():
        pace.draw_requested()
        assert drawn == [], "nothing was requested"
        pace.request()
        pace.draw_requested()
        assert drawn == [0.0]
        await asyncio.sleep(1)

    loop.run_until_complete(press())
    assert drawn == [0.0]


@pytest.mark.parametrize(("gap", "written"), [(0.2, [0.1, 0.3, 0.5]), (0.07, [0.3, 0.65, 1.0])])
def test_texts_follow_in_a_pause_of_typing_or_after_the_longest_delay(loop, gap, written):
    times = []
    pause = KeyPause(lambda: times.append(loop.time()), delay=0.1, longest=0.3)

    async def type_keys():
        for _ in range(3 if gap > 0.1 else 15):
            pause.restart()
            await asyncio.sleep(gap)
        await asyncio.sleep(1)

    loop.run_until_complete(type_keys())
    assert times == pytest.approx(written)


def test_a_dropped_text_is_not_written(loop):
    times = []
    pause = KeyPause(lambda: times.append(loop.time()))

    async def drop():
        pause.restart()
        pause.cancel()
        await asyncio.sleep(1)

    loop.run_until_complete(drop())
    assert times == []
