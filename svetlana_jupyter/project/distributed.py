"""Predicting on a dask cluster: blocks are read by tasks of their own, and parts are classified where these lie.

Whatever a task needs is the result of another task, so that the cluster itself does again what a worker that died had,
and nothing else. A block is read once, however many parts share it; the classifier travels once to each worker.
"""

from __future__ import annotations

import importlib
import queue
import sys
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self
from uuid import uuid4

import dask
import pandas as pd

from svetlana_jupyter.core.io.chunks import BlockDecoder, BlockKey, BlockPixels, with_fetched_blocks
from svetlana_jupyter.core.io.image_pair import ImagePair
from svetlana_jupyter.core.normalization import ImageStatistics, set_image_statistics
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.prediction_parts import PartPredictions, merge_batches

if TYPE_CHECKING:
    from distributed import Client, Future

    from svetlana_jupyter.learn.classifier import Classifier
    from svetlana_jupyter.learn.novelty import ReferenceDistribution

LOCAL = "local"
PACKAGE = __name__.partition(".")[0]
AHEAD = 2  # parts a thread that are given to the cluster at a time
PATIENCE = 0.2  # seconds between two looks at whether to stop
LARGE = "distributed.admin.large-graph-warning-threshold"


def resolve_client(given: Client | str | None) -> Client | None:
    """Return the client to use: the one that is given, else the one that is active, None with "local".

    Raises
    ------
    InputError
        If it is no client, or workers of its cluster lack this package, or have it in another version.
    """
    if given == LOCAL:
        return None
    if given is None and "distributed" not in sys.modules:
        return None
    from distributed import Client, default_client

    if given is None:
        try:
            given = default_client()
        except ValueError:  # there is none
            return None
    if not isinstance(given, Client) or given.asynchronous:
        raise InputError(
            f'client must be a dask.distributed.Client that is not asynchronous, or "local", got {given!r}.'
        )
    _check_workers(given)
    return given


@dataclass(frozen=True)
class _Job:
    """What all tasks of an image need, besides pixels."""

    pair: ImagePair
    statistics: ImageStatistics | None
    classifier: Classifier
    reference: ReferenceDistribution | None
    asked: frozenset[int] | None

    @cached_property
    def decode(self) -> BlockDecoder:
        return BlockDecoder(self.pair)


def predict_on_cluster(
    client: Client,
    pair: ImagePair,
    parts: Mapping[int, pd.DataFrame],
    classifier: Classifier,
    reference: ReferenceDistribution | None,
    asked: Collection[int] | None,
    stop: Callable[[], bool],
) -> Generator[tuple[int, PartPredictions]]:
    """Predict the objects of some parts, and yield each part as soon as it is done.

    Parameters
    ----------
    parts : mapping of int to DataFrame
        Of those that `learn.inference.split_into_parts` gives, by number and in their order.
    asked : collection of int, optional
        Objects to compare with ``reference``.
    stop : callable
        Once it returns True, nothing more is yielded, and what the cluster does for this is cancelled.

    Raises
    ------
    InputError
        If the cluster's workers cannot read the image, die again and again, or cannot be reached any more.
    """
    from svetlana_jupyter.core.patches import statistics_for_normalization
    from svetlana_jupyter.learn.inference import blocks_per_part

    plain = replace(pair, feature_cache=None, levels=(), mask_levels=())
    statistics = statistics_for_normalization(pair.image, classifier.patches) if classifier.kind == "network" else None
    job = _Job(plain, statistics, classifier, reference, None if asked is None else frozenset(map(int, asked)))
    needs = blocks_per_part(pair, list(parts.values()), classifier)
    waiting = list(parts)[::-1]
    with _in_words(pair.name), _Tasks(client, job, parts, needs) as tasks:
        while (waiting or tasks.running) and not stop():
            most = AHEAD * max(1, sum(client.nthreads().values()))
            while waiting and len(tasks.running) < most:
                tasks.begin(waiting.pop())
            done = tasks.next_finished()
            if done is not None:
                yield done


class _Tasks:
    """What the cluster has of one image: a task for each part that was begun, and one for each block under these.

    A block is kept until the last part that needs it is done. Leaving the context cancels what is not done.
    """

    def __init__(
        self, client: Client, job: _Job, parts: Mapping[int, pd.DataFrame], needs: Sequence[Sequence[BlockKey]]
    ) -> None:
        self._client, self._parts = client, parts
        self._needs = dict(zip(parts, needs, strict=True))
        self._uses = Counter(block for blocks in needs for block in blocks)
        self._pixels: dict[BlockKey, Future] = {}
        self._finished: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._name = f"svetlana-{uuid4().hex[:12]}"
        self.running: dict[Future, int] = {}
        with dask.config.set({LARGE: "10GB"}):  # weights of a large network are no mistake
            self._job = client.submit(_given, job, key=f"{self._name}-job", pure=False)

    def begin(self, number: int) -> None:
        """Give the cluster a part, and the blocks under it that it was not given yet."""
        blocks = self._needs[number]
        for block in blocks:
            if block not in self._pixels:
                key = (f"{self._name}-read", *_flat(block))
                self._pixels[block] = self._client.submit(_read, self._job, block, key=key, pure=False)
        under = [self._pixels[block] for block in blocks]
        key = (f"{self._name}-part", number)
        task = self._client.submit(_predict, self._job, self._parts[number], blocks, under, key=key, pure=False)
        self.running[task] = number
        task.add_done_callback(self._finished.put)

    def next_finished(self) -> tuple[int, PartPredictions] | None:
        """Return a part that is done, None where none is after a moment."""
        try:
            task = self._finished.get(timeout=PATIENCE)
        except queue.Empty:
            return None
        number = self.running.pop(task)
        table: PartPredictions = task.result()
        for block in self._needs[number]:
            self._uses[block] -= 1
            if not self._uses[block]:
                del self._pixels[block]
        return number, table

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.running:
            self._client.cancel([*self.running, *self._pixels.values()])


@contextmanager
def _in_words(image: str) -> Iterator[None]:
    """Say in a sentence what became of the cluster."""
    from distributed import CancelledError, KilledWorker

    try:
        yield
    except KilledWorker as error:
        raise InputError(
            f"workers of the cluster died again and again over {image} ({error.task}). They may have too little "
            "memory: give each more, or fewer threads. What is done is kept."
        ) from error
    except CancelledError as error:
        raise InputError(
            f"the cluster gave up on {image}: its scheduler may be gone. Start it again and predict again; "
            "what is done is kept."
        ) from error


def _given(job: _Job) -> _Job:
    return job


def _read(job: _Job, block: BlockKey) -> BlockPixels:
    return job.decode(block)


def _predict(
    job: _Job, objects: pd.DataFrame, blocks: Sequence[BlockKey], pixels: Sequence[BlockPixels]
) -> PartPredictions:
    from svetlana_jupyter.learn.device import limit_threads
    from svetlana_jupyter.learn.inference import predict_part

    limit_threads(1)  # a worker has as many tasks at a time as it has threads
    if job.statistics is not None:
        set_image_statistics(job.pair.image, job.statistics)
    known = dict(zip(blocks, pixels, strict=True))
    pair = with_fetched_blocks(job.pair, lambda block: known[block] if block in known else job.decode(block))
    found, end = predict_part(pair, objects, job.classifier, job.reference, job.asked)
    return merge_batches(found, end, job.classifier.classes)


def _flat(block: BlockKey) -> tuple[str | int, ...]:
    kind, number = block
    return kind, *number


def _check_workers(client: Client) -> None:
    """Refuse a cluster whose workers cannot do the work."""

    def version(package: str) -> str:  # inside a function, so that it travels without this package
        import importlib

        try:
            return str(importlib.import_module(package).__version__)
        except ImportError:
            return ""

    here = importlib.import_module(PACKAGE).__version__
    found = {"the scheduler": client.run_on_scheduler(version, PACKAGE)}
    found |= {f"the worker {worker}": there for worker, there in client.run(version, PACKAGE).items()}
    for who, there in found.items():
        if there != here:
            lacks = f"has svetlana-jupyter {there}, this is {here}" if there else "has no svetlana-jupyter"
            raise InputError(
                f"{who} of the cluster {lacks}. Install the same version in the environment of scheduler and workers "
                f'(pip install svetlana-jupyter=={here}), or predict with client="local".'
            )
