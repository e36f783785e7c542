"""Prediction of the objects of an image, while a thread reads the next blocks.

Batches are distributed among threads, each of which cuts the patches of a batch and classifies them on one core.
Splitting each batch among all cores would let them wait for each other after every layer. There is one more thread
than those that may classify, so that patches are cut meanwhile.

The objects of a few neighboring blocks form a part. Predictions are stored, resumed and distributed to other machines
part by part. Parts do not share batches, so the probabilities of a part are bitwise equal, whichever other parts are
predicted.
"""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from svetlana_jupyter.core.io.chunks import (
    BlockDecoder,
    BlockKey,
    ChunkCache,
    group_blocks_into_parts,
    list_needed_blocks,
    processing_block_shape,
    with_fetched_blocks,
)
from svetlana_jupyter.core.objects import NONFINITE_PIXELS, find_nonfinite_objects
from svetlana_jupyter.errors import DamagedError
from svetlana_jupyter.learn.novelty import MAX_COMPARED, ReferenceDistribution

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator, Mapping, Sequence

    import pandas as pd

    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.learn.classifier import Classifier
    from svetlana_jupyter.learn.specification import UncutInputs

Labels = NDArray[np.int64]
Floats = NDArray[np.float32]
UncutBatch = list["UncutInputs"]

# Patches of 44 × 44 pixels took 141, 119 and 100 µs each in batches of 32, 64 and 128, because each batch costs time.
# Patches of 64 × 64 pixels were fastest in batches of 64, because feature maps of more patches exceed the caches.
PIXELS_PER_BATCH = 2**18
PATCHES_PER_BATCH = (8, 128)
# A network classifies a part in less than a second. For forests, parts are larger, because features are stored for many
# objects at a time.
OBJECTS_PER_PART = {
    **{("network", 2): 512, ("network", 3): 128, ("forest", 2): 10_000, ("forest", 3): 10_000},
    **{("live", 2): 512, ("live", 3): 512},
}
MAX_QUEUED_BATCHES = 8  # batches that are read in advance


@dataclass(frozen=True)
class PredictionBatch:
    """Class probabilities of a batch of objects.

    Parameters
    ----------
    objects : int64 of shape (n,)
        Labels of the objects.
    probabilities : float32 of shape (n, k)
        One column per class, in the order of ``classifier.classes``.
    novelty : float32 of shape (m,)
        Distance from the annotated objects, for the m objects that are compared with them (`learn.novelty`).
    features : float16 of shape (n, d)
        Features that the last layer of the network classifies (`NetworkClassifier.classify_and_embed`); d is 0 for
        other classifiers.
    """

    objects: Labels
    probabilities: Floats
    novelty: Floats
    features: NDArray[np.float16]


@dataclass(frozen=True)
class PartFinished:
    """Event after all readable objects of a part of the image are classified.

    Parameters
    ----------
    part : int
        Number of the part.
    failed : dict of int to str
        Labels of the objects whose pixels cannot be decoded or are not finite, each with the reason.
    """

    part: int
    failed: Mapping[int, str]


def predict_parts(
    pair: ImagePair,
    parts: Mapping[int, pd.DataFrame],
    classifier: Classifier,
    reference: ReferenceDistribution | None = None,
    compared: Collection[int] = (),
    batch_size: int | None = None,
) -> Generator[PredictionBatch | PartFinished]:
    """Classify the objects of several parts, decoding each image block once.

    One thread reads blocks, while others cut patches and classify them, as many at a time as torch uses threads.
    Closing the generator stops all of them. The result does not depend on the number of threads.

    Parameters
    ----------
    pair : ImagePair
    parts : mapping of int to DataFrame
        Objects of each part by part number, in the order of `split_into_parts`.
    classifier : Classifier
    reference : ReferenceDistribution, optional
        Distribution of the annotated objects.
    compared : collection of int
        Labels of the objects to compare with ``reference``.
    batch_size : int, optional
        Maximum number of patches that are classified at a time; by default `default_batch_size`.

    Yields
    ------
    PredictionBatch
        After each batch.
    PartFinished
        After the last batch of each part.
    """
    batches = _read_parts(pair, parts, classifier, batch_size or default_batch_size(classifier))
    threads = ThreadpoolController()
    # Patches are cut with a single BLAS thread; more would compete with the network for the cores.
    with (
        threads.limit(limits=1, user_api="blas"),
        closing(_run_ahead(batches, _BatchClassifier(classifier, reference, compared), threads)) as events,
    ):
        yield from events


def predict_part(
    pair: ImagePair,
    objects: pd.DataFrame,
    classifier: Classifier,
    reference: ReferenceDistribution | None = None,
    compared: Collection[int] = (),
) -> tuple[list[PredictionBatch], PartFinished]:
    """Classify the objects of one part as in `predict_parts`, without a thread."""
    failed: dict[int, str] = {}
    classify = _BatchClassifier(classifier, reference, compared)
    batches = _read_batches(classifier, pair, objects, default_batch_size(classifier), failed)
    return [classify(batch) for batch in batches], PartFinished(0, failed)


def default_batch_size(classifier: Classifier) -> int:
    """Return how many objects to classify at a time; fewer if patches are large."""
    fewest, most = PATCHES_PER_BATCH
    if classifier.kind != "network":
        return most
    return min(max(fewest, PIXELS_PER_BATCH // math.prod(classifier.patches.shape)), most)


def split_into_parts(pair: ImagePair, objects: pd.DataFrame, classifier: Classifier) -> list[pd.DataFrame]:
    """Split the objects of an image into parts, in the order of the image's blocks."""
    centers = objects[["z", "y", "x"][-pair.ndim :]].to_numpy(float)
    size = OBJECTS_PER_PART[classifier.kind, pair.ndim]
    positions = group_blocks_into_parts(centers, processing_block_shape(pair.image, pair.mask), size)
    return [objects.iloc[some] for some in positions]


def blocks_per_part(pair: ImagePair, parts: Sequence[pd.DataFrame], classifier: Classifier) -> list[list[BlockKey]]:
    """Return the image and mask blocks that the patches of each part are cut from."""
    return [list_needed_blocks(pair, classifier.windows(pair, part)) for part in parts]


def sample_for_novelty(objects: pd.DataFrame) -> Labels:
    """Return a random sample of objects to compare with the annotated ones."""
    return np.random.default_rng(0).permutation(objects.index.to_numpy(np.int64))[:MAX_COMPARED]


class _BatchClassifier:
    """Classification of a batch, and comparison with the annotated objects.

    Several threads may cut patches, but no more than torch uses threads classify at a time.
    """

    def __init__(
        self, classifier: Classifier, reference: ReferenceDistribution | None, compared: Collection[int]
    ) -> None:
        self.parallel = classifier.parallel
        self.at_a_time = torch.get_num_threads() if classifier.parallel else 1
        self._classifier, self._reference, self._compared = classifier, reference, frozenset(compared)
        self._classifying = BoundedSemaphore(self.at_a_time)

    def __call__(self, batch: UncutBatch) -> PredictionBatch:
        """Cut and classify a batch."""
        labels = np.concatenate([some for some, _ in batch])
        pieces = [cut() for _, cut in batch]
        inputs = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        novelty = np.empty(0, np.float32)
        chosen = [label in self._compared for label in labels.tolist()]
        if self._reference is not None and any(chosen):
            novelty = self._reference.novelty(inputs[chosen], self._classifier.patches.mask_channel)
        with self._classifying:
            probabilities, features = self._classifier.classify_and_embed(inputs)
        return PredictionBatch(labels, probabilities, novelty, features)


def _read_parts(
    pair: ImagePair, parts: Mapping[int, pd.DataFrame], classifier: Classifier, size: int
) -> Iterator[UncutBatch | PartFinished]:
    """Yield the batches and the end of each part; cache blocks for later parts."""
    cache = ChunkCache(BlockDecoder(pair), blocks_per_part(pair, list(parts.values()), classifier))
    cached = with_fetched_blocks(pair, cache.fetch)
    for position, (number, objects) in enumerate(parts.items()):
        failed: dict[int, str] = {}
        yield from _read_batches(classifier, cached, objects, size, failed)
        cache.release(position)
        yield PartFinished(number, failed)


def _read_batches(
    classifier: Classifier, pair: ImagePair, objects: pd.DataFrame, size: int, failed: dict[int, str]
) -> Iterator[UncutBatch]:
    """Yield batches of readable objects; add all others to ``failed``.

    A batch has at most ``size`` objects, unless they were read together.
    """
    batch: UncutBatch = []
    count = 0
    for labels, cut in _read_inputs(classifier, pair, objects, size, failed):
        if batch and count + len(labels) > size:
            yield batch
            batch, count = [], 0
        batch.append((labels, cut))
        count += len(labels)
    if batch:
        yield batch


def _read_inputs(
    classifier: Classifier, pair: ImagePair, objects: pd.DataFrame, size: int, failed: dict[int, str]
) -> Iterator[UncutInputs]:
    """Yield the uncut inputs of readable objects; add all others to ``failed``.

    Unreadable objects are found by bisection. Objects with NaN or infinite pixels are not classified, because these
    pixels would count as 0.
    """
    done: set[int] = set()
    try:
        invalid = find_nonfinite_objects(pair.image, pair.mask, objects)
        failed.update(dict.fromkeys(invalid, NONFINITE_PIXELS))
        objects = objects.drop(index=invalid)
        for labels, cut in classifier.read(pair, objects, size):
            yield labels, cut
            done.update(labels.tolist())
    except DamagedError as error:
        rest = objects[~objects.index.isin(list(done))]
        if len(rest) == 1:
            failed[int(rest.index[0])] = str(error)
            return
        middle = len(rest) // 2
        for half in (rest.iloc[:middle], rest.iloc[middle:]):
            yield from _read_inputs(classifier, pair, half, size, failed)


def _run_ahead(
    items: Iterator[UncutBatch | PartFinished], classify: _BatchClassifier, threads: ThreadpoolController
) -> Generator[PredictionBatch | PartFinished]:
    """Yield the classified batches and all other items in order, computed in advance.

    A thread reads the items and other threads classify them, while the caller handles earlier results. An error is
    raised in the place of the item that it belongs to.
    """
    count = classify.at_a_time + 1

    def use_one_core() -> None:
        if classify.parallel:
            torch.get_num_threads()  # this torch thread must be initialized before it is limited
            threads.limit(limits=1, user_api="openmp")

    def handle(item: Future[UncutBatch | PartFinished | None]) -> PredictionBatch | PartFinished | None:
        event = item.result()
        return event if event is None or isinstance(event, PartFinished) else classify(event)

    with (
        ThreadPoolExecutor(count, "classifying patches", use_one_core) as workers,
        ThreadPoolExecutor(1, "reading blocks") as reader,
    ):

        def submit() -> Future[PredictionBatch | PartFinished | None]:
            return workers.submit(handle, reader.submit(next, items, None))

        ready = deque(submit() for _ in range(count + MAX_QUEUED_BATCHES))
        try:
            while (event := ready.popleft().result()) is not None:
                ready.append(submit())
                yield event
        finally:
            reader.shutdown(cancel_futures=True)
            workers.shutdown(cancel_futures=True)
