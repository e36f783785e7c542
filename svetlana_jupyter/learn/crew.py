"""Several independent trainings at once, each on one core: many small networks train faster side by side than in turn.

What each of them gives does not depend on how many there are, nor on the order in which they end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TypeVar

Result = TypeVar("Result")
Stop = Callable[[], bool]

PATIENCE = 0.05  # seconds between two looks at whether to stop
HEARTBEAT_SECONDS = 1.0  # seconds without news, after which there is a beat


def run_in_threads(
    tasks: Sequence[Callable[[Stop], Result]], workers: int, stop: Stop
) -> Iterator[tuple[int, Result] | None]:
    """Run tasks and yield the number and the result of each as soon as it ends, and None about once a second.

    Parameters
    ----------
    tasks : sequence of callables
        Each is given a function that tells whether to stop, and should return soon once it does.
    workers : int
        How many run at a time.
    stop : callable
        Once it returns True, nothing more is yielded; so it is when this generator is closed or a task raises.
    """
    closing = threading.Event()
    with ThreadPoolExecutor(workers, thread_name_prefix="svetlana crew") as pool:
        running = {pool.submit(task, lambda: closing.is_set() or stop()): number for number, task in enumerate(tasks)}
        last = time.monotonic()
        try:
            while running and not stop():
                done, _ = wait(running, timeout=PATIENCE, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=running.__getitem__):
                    yield running.pop(future), future.result()
                    last = time.monotonic()
                if time.monotonic() - last >= HEARTBEAT_SECONDS:
                    yield None
                    last = time.monotonic()
        finally:
            closing.set()
            pool.shutdown(wait=True, cancel_futures=True)
