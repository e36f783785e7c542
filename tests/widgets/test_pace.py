"""When things are drawn: merged, one at a time, with a rest after each; at once where there is no loop."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from svetlana_jupyter.widgets.pace import Debounce, Pace


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
    Pace(lambda: drawn.append("drawn")).request()
    Debounce(lambda: drawn.append("rested")).restart()
    assert drawn == ["drawn", "rested"]


def test_many_requests_make_one_draw(loop):
    drawn = []
    pace = Pace(lambda: drawn.append(loop.time()))

    async def ask():
        for _ in range(100):
            pace.request()
        assert drawn == []
        await asyncio.sleep(1)

    loop.run_until_complete(ask())
    assert len(drawn) == 1


def test_the_next_draw_begins_a_rest_after_the_end_of_the_last(loop):
    spans = []

    def slow():
        start = loop.time()
        loop.now += 0.2
        spans.append((start, loop.time()))

    pace = Pace(slow, rest=0.05)

    async def move():
        for _ in range(60):
            pace.request()
            await asyncio.sleep(1 / 60)

    loop.run_until_complete(move())
    assert len(spans) > 2
    assert all(start - end >= 0.05 - 1e-9 for (_, end), (start, _) in itertools.pairwise(spans))


def test_the_last_request_is_always_drawn(loop):
    state, drawn = {"at": 0}, []
    pace = Pace(lambda: drawn.append(state["at"]))

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

    pace = Pace(draw)
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
    pace = Pace(lambda: drawn.append(True))

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


def test_rest_comes_once_after_the_last_motion(loop):
    rested = []
    rest = Debounce(lambda: rested.append(loop.time()), delay=0.15)

    async def move():
        for _ in range(10):
            rest.restart()
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)

    loop.run_until_complete(move())
    assert rested == pytest.approx([0.9 + 0.15])
