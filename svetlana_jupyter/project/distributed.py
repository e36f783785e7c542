"""Prediction on a dask cluster.

The objects of an image are divided into parts. One task reads each block of pixels, and one task classifies each part.
The scheduler keeps a block until the last part that needs it is finished, and repeats the tasks of a worker that died.
Each block is therefore read only once, even if several parts need it, and the classifier is sent only once to each
worker. A worker holds the blocks of as many parts as it has threads.
"""

from __future__ import annotations

import importlib
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING
from uuid import uuid4

import dask

from svetlana_jupyter.core.io.chunks import BlockDecoder, BlockKey, BlockPixels, with_fetched_blocks
from svetlana_jupyter.core.normalization import ImageStatistics, set_image_statistics
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.prediction_parts import PartPredictions, merge_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence

    import pandas as pd
    from distributed import Client, Future

    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.learn.classifier import Classifier
    from svetlana_jupyter.learn.novelty import ReferenceDistribution

LOCAL = "local"
PACKAGE = __name__.partition(".")[0]
POLL_SECONDS = 0.05  # between two checks for a stop request
CHECK_SECONDS, WITHOUT_WORKER_SECONDS = 1.0, 10.0  # between two counts of the workers; time for new ones to start
LARGE_GRAPH = "distributed.admin.large-graph-warning-threshold"


def resolve_client(given: Client | str | None) -> Client | None:
    """Return the dask client to use: the given client, otherwise the active client.

    The result is None if no client is active or if "local" is given.

    Raises
    ------
    InputError
        If the argument is not a synchronous client, or if a worker of its cluster does not have this version of the
        package.
    """
    if given == LOCAL or (given is None and "distributed" not in sys.modules):
        return None
    from distributed import Client, default_client

    if given is None:
        try:
            given = default_client()
        except ValueError:  # no client is active
            return None
    if not isinstance(given, Client) or given.asynchronous:
        raise InputError(
            f'client must be a synchronous dask.distributed.Client or "local", got {given!r}. Pass Client(...).'
        )
    _check_workers(given)
    return given


def _check_workers(client: Client) -> None:
    """Check that scheduler and workers have this version of the package."""

    def version(package: str) -> str:  # nested, so that it is pickled by value and runs without this package
        import importlib

        try:
            return str(importlib.import_module(package).__version__)
        except ImportError:
            return ""

    own = importlib.import_module(PACKAGE).__version__
    try:
        versions = {"The scheduler": client.run_on_scheduler(version, PACKAGE)}
        versions |= {f"The worker {worker}": found for worker, found in client.run(version, PACKAGE).items()}
    except Exception as error:  # a lost connection raises errors of several kinds
        raise InputError(
            f"The cluster was lost while the versions of its workers were checked ({error}). Check that scheduler and "
            'workers run, then predict again, or predict with client="local".'
        ) from error
    for machine, found in versions.items():
        if found != own:
            problem = f"has svetlana-jupyter {found}, but this kernel has {own}" if found else "has no svetlana-jupyter"
            raise InputError(
                f"{machine} of the cluster {problem}. Install the same version in the environment of scheduler and "
                f'workers (pip install svetlana-jupyter=={own}), or predict with client="local".'
            )


@dataclass(frozen=True)
class _Job:
    """Data that all tasks of an image share, except pixels."""

    pair: ImagePair
    statistics: ImageStatistics | None
    classifier: Classifier
    reference: ReferenceDistribution | None
    to_compare: frozenset[int]

    @cached_property
    def decode(self) -> BlockDecoder:
        return BlockDecoder(self.pair)

    def read(self, block: BlockKey) -> BlockPixels:
        return self.decode(block)

    def predict(
        self, objects: pd.DataFrame, blocks: Sequence[BlockKey], pixels: Sequence[BlockPixels]
    ) -> PartPredictions:
        import torch

        from svetlana_jupyter.learn.inference import predict_part

        torch.set_num_threads(1)  # a worker runs as many tasks at a time as it has threads
        if self.statistics is not None:
            set_image_statistics(self.pair.image, self.statistics)
        known = dict(zip(blocks, pixels, strict=True))
        pair = with_fetched_blocks(self.pair, lambda block: known[block] if block in known else self.decode(block))
        batches, end = predict_part(pair, objects, self.classifier, self.reference, self.to_compare)
        return merge_batches(batches, end, self.classifier.classes)


def predict_on_cluster(
    client: Client,
    pair: ImagePair,
    parts: Mapping[int, pd.DataFrame],
    classifier: Classifier,
    reference: ReferenceDistribution | None,
    to_compare: Collection[int],
    stop: Callable[[], bool],
) -> Generator[tuple[int, PartPredictions]]:
    """Predict parts of the objects of an image, and yield each finished part.

    Parameters
    ----------
    client : Client
    pair : ImagePair
    parts : mapping of int to DataFrame
        Parts of the object table (`learn.inference.split_into_parts`), by number and in this order.
    classifier : Classifier
    reference : ReferenceDistribution or None
    to_compare : collection of int
        Objects to compare with ``reference``.
    stop : callable
        When it returns True, no further part is yielded, and the tasks on the cluster are canceled.

    Raises
    ------
    InputError
        If the workers cannot read the image, die repeatedly or can no longer be reached.
    """
    from distributed import as_completed

    from svetlana_jupyter.core.patches import statistics_for_normalization

    bare = replace(pair, feature_cache=None, levels=(), mask_levels=())
    statistics = statistics_for_normalization(pair.image, classifier.patches) if classifier.kind == "network" else None
    job = _Job(bare, statistics, classifier, reference, frozenset(map(int, to_compare)))
    with _wrap_cluster_errors(pair.name):
        running = dict(zip(_compute(client, job, parts), parts, strict=True))
        try:
            finished = as_completed(running, loop=client.loop)
            checked = has_worker = time.monotonic()
            while running and not stop():
                if (now := time.monotonic()) - checked > CHECK_SECONDS:
                    checked, has_worker = now, now if client.scheduler_info()["workers"] else has_worker
                if checked - has_worker > WITHOUT_WORKER_SECONDS:
                    raise InputError(
                        f"The cluster has had no worker for {WITHOUT_WORKER_SECONDS:.0f} seconds. Start workers and "
                        'predict again, or predict with client="local"; finished parts are kept.'
                    )
                if finished.has_ready():
                    future = next(finished)
                    number, part = running.pop(future), future.result()
                    del future  # a future that is still referenced is computed again if its worker dies
                    yield number, part
                else:
                    time.sleep(POLL_SECONDS)
        finally:
            client.cancel(list(running))


def _compute(client: Client, job: _Job, parts: Mapping[int, pd.DataFrame]) -> list[Future]:
    """Send the tasks of an image to the cluster, and return one future per part."""
    from svetlana_jupyter.learn.inference import blocks_per_part

    needed = blocks_per_part(job.pair, list(parts.values()), job.classifier)
    name = f"svetlana-{uuid4().hex[:12]}"
    read, predict = dask.delayed(_Job.read, pure=False), dask.delayed(_Job.predict, pure=False)
    with dask.config.set({LARGE_GRAPH: "10GB"}):  # the weights of a large network are expected
        shared = client.submit(lambda job: job, job, key=f"{name}-job", pure=False)
        pixels = {
            block: read(shared, block, dask_key_name=(f"{name}-read", block[0], *block[1]))
            for block in dict.fromkeys(chain.from_iterable(needed))
        }
        # In a single graph, dask reads the blocks of a part right before its prediction, so few blocks are in memory.
        tasks = [
            predict(shared, part, blocks, [pixels[block] for block in blocks], dask_key_name=(name, number))
            for (number, part), blocks in zip(parts.items(), needed, strict=True)
        ]
        futures: list[Future] = client.compute(tasks)
        return futures


@contextmanager
def _wrap_cluster_errors(image: str) -> Iterator[None]:
    """Raise failures of the cluster as an `InputError` that explains them."""
    from distributed import CancelledError, KilledWorker
    from distributed.comm import CommClosedError

    try:
        yield
    except (CommClosedError, TimeoutError) as error:
        raise InputError(
            f"The cluster cannot be reached while predicting {image} ({error}). Restart it and predict again; finished "
            "parts are kept."
        ) from error
    except (KilledWorker, CancelledError) as error:
        problem = (
            f"Workers of the cluster died repeatedly while predicting {image} ({error.task}), perhaps because they "
            "ran out of memory. Give each worker more memory or fewer threads, then"
            if isinstance(error, KilledWorker)
            else f"The cluster canceled the prediction of {image}; its scheduler may have stopped. Restart it and"
        )
        raise InputError(f"{problem} predict again; finished parts are kept.") from error
