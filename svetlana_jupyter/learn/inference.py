"""Prediction of the objects of an image, while a thread reads the next blocks.

The objects of a few neighboring blocks form a part: the unit that is stored, resumed or sent to another machine. The
batches of a part do not depend on which other parts are predicted, so its probabilities are equal bit by bit.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from svetlana_jupyter.core.io.chunks import (
    BlockDecoder,
    BlockKey,
    ChunkCache,
    group_blocks_into_parts,
    list_needed_blocks,
    processing_block_shape,
    with_fetched_blocks,
)
from svetlana_jupyter.errors import DamagedError
from svetlana_jupyter.learn.novelty import MAX_COMPARED, ReferenceDistribution

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence

    import pandas as pd

    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.learn.classifier import Classifier

Item = TypeVar("Item")
Labels = NDArray[np.int64]
Floats = NDArray[np.float32]
InputBatch = tuple[Labels, Floats]

BATCH_SIZES = {2: 32, 3: 8}  # feature maps of this many patches stay in the cache of a CPU
# Less than a second of work per part for a network. Features are stored for many objects at a time.
OBJECTS_PER_PART = {("network", 2): 512, ("network", 3): 128, ("forest", 2): 10_000, ("forest", 3): 10_000}
MAX_QUEUED_BATCHES = 8  # batches cut ahead


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
        Distance of the compared objects from the annotated ones (`learn.novelty`).
    """

    objects: Labels
    probabilities: Floats
    novelty: Floats


@dataclass(frozen=True)
class PartFinished:
    """Event after all readable objects of a part of the image are classified.

    Parameters
    ----------
    part : int
    failed : dict of int to str
        Objects whose pixels cannot be decoded, with the reason.
    """

    part: int
    failed: Mapping[int, str]


ScoredBatch = tuple[Labels, Floats, Floats]  # labels, inputs, and the novelty of some objects


def predict_parts(
    pair: ImagePair,
    parts: Mapping[int, pd.DataFrame],
    classifier: Classifier,
    reference: ReferenceDistribution | None = None,
    compared: Collection[int] = (),
    batch_size: int | None = None,
) -> Generator[PredictionBatch | PartFinished]:
    """Classify the objects of some parts, decoding each block once.

    One background thread reads and cuts while the classifier works. Closing the generator stops both.

    Parameters
    ----------
    pair : ImagePair
    parts : mapping of int to DataFrame
        Parts of `split_into_parts` by number, in their order.
    classifier : Classifier
    reference : ReferenceDistribution, optional
        Distribution of the annotated objects.
    compared : collection of int
        Objects to compare with ``reference``.
    batch_size : int, optional
        Objects classified at a time; by default 32 in 2D and 8 in 3D.

    Yields
    ------
    PredictionBatch
        Batch by batch.
    PartFinished
        After the last batch of each part.
    """
    cut = partial(_cut_part, classifier, reference, frozenset(compared), batch_size or BATCH_SIZES[pair.ndim])
    # A single BLAS thread for cutting, which would otherwise take the cores of the network.
    with threadpool_limits(1, user_api="blas"), closing(_prefetch(_cut_parts(pair, parts, classifier, cut))) as events:
        for event in events:
            yield event if isinstance(event, PartFinished) else _classify(classifier, event)


def predict_part(
    pair: ImagePair,
    objects: pd.DataFrame,
    classifier: Classifier,
    reference: ReferenceDistribution | None = None,
    compared: Collection[int] = (),
) -> tuple[list[PredictionBatch], PartFinished]:
    """Return what `predict_parts` yields for one part, without a thread."""
    failed: dict[int, str] = {}
    cut = _cut_part(classifier, reference, frozenset(compared), BATCH_SIZES[pair.ndim], pair, objects, failed)
    return [_classify(classifier, batch) for batch in cut], PartFinished(0, failed)


def split_into_parts(pair: ImagePair, objects: pd.DataFrame, classifier: Classifier) -> list[pd.DataFrame]:
    """Split the objects of an image into parts, in the order of the image's blocks."""
    centers = objects[["z", "y", "x"][-pair.ndim :]].to_numpy(float)
    size = OBJECTS_PER_PART[classifier.kind, pair.ndim]
    positions = group_blocks_into_parts(centers, processing_block_shape(pair.image, pair.mask), size)
    return [objects.iloc[some] for some in positions]


def blocks_per_part(pair: ImagePair, parts: Sequence[pd.DataFrame], classifier: Classifier) -> list[list[BlockKey]]:
    """Return the image and mask blocks needed to cut the objects of each part."""
    return [list_needed_blocks(pair, classifier.windows(pair, part)) for part in parts]


def sample_for_novelty(objects: pd.DataFrame) -> Labels:
    """Return a random sample of objects to compare with the annotated ones."""
    return np.random.default_rng(0).permutation(objects.index.to_numpy(np.int64))[:MAX_COMPARED]


def _classify(classifier: Classifier, batch: ScoredBatch) -> PredictionBatch:
    labels, inputs, novelty = batch
    return PredictionBatch(labels, classifier.classify(inputs), novelty)


def _cut_parts(
    pair: ImagePair,
    parts: Mapping[int, pd.DataFrame],
    classifier: Classifier,
    cut: Callable[[ImagePair, pd.DataFrame, dict[int, str]], Iterator[ScoredBatch]],
) -> Iterator[ScoredBatch | PartFinished]:
    """Yield the batches of each part and its end; keep blocks that later parts need."""
    cache = ChunkCache(BlockDecoder(pair), blocks_per_part(pair, list(parts.values()), classifier))
    cached = with_fetched_blocks(pair, cache.fetch)
    for position, (number, objects) in enumerate(parts.items()):
        failed: dict[int, str] = {}
        yield from cut(cached, objects, failed)
        cache.release(position)
        yield PartFinished(number, failed)


def _cut_part(
    classifier: Classifier,
    reference: ReferenceDistribution | None,
    compared: frozenset[int],
    size: int,
    pair: ImagePair,
    objects: pd.DataFrame,
    failed: dict[int, str],
) -> Iterator[ScoredBatch]:
    """Yield the batches of a part, with the novelty of compared objects."""
    for labels, inputs in _in_batches(_cut_readable(classifier, pair, objects, failed), size):
        novelty = np.empty(0, np.float32)
        chosen = [label in compared for label in labels.tolist()]
        if reference is not None and any(chosen):
            novelty = reference.novelty(inputs[chosen], classifier.patches.mask_channel)
        yield labels, inputs, novelty


def _cut_readable(
    classifier: Classifier, pair: ImagePair, objects: pd.DataFrame, failed: dict[int, str]
) -> Iterator[InputBatch]:
    """Yield the inputs of readable objects; add the others to ``failed`` (bisection)."""
    cut: set[int] = set()
    try:
        for labels, inputs in classifier.cut(pair, objects):
            yield labels, inputs
            cut.update(labels.tolist())
    except DamagedError as error:
        rest = objects[~objects.index.isin(list(cut))]
        if len(rest) == 1:
            failed[int(rest.index[0])] = str(error)
            return
        middle = len(rest) // 2
        for half in (rest.iloc[:middle], rest.iloc[middle:]):
            yield from _cut_readable(classifier, pair, half, failed)


def _in_batches(pieces: Iterator[InputBatch], size: int) -> Iterator[InputBatch]:
    """Regroup pieces of any size into batches of ``size``, the last one smaller."""
    rest: InputBatch | None = None
    for labels, inputs in pieces:
        if rest is not None:
            labels, inputs = np.concatenate([rest[0], labels]), np.concatenate([rest[1], inputs])
        full = len(labels) - len(labels) % size
        for first in range(0, full, size):
            yield labels[first : first + size], inputs[first : first + size]
        rest = (labels[full:], inputs[full:]) if full < len(labels) else None
    if rest is not None:
        yield rest


def _prefetch(items: Iterator[Item]) -> Generator[Item]:
    """Yield the items of an iterator, which a thread takes ahead."""
    with ThreadPoolExecutor(1, "cutting patches") as reader:
        ready = deque(reader.submit(next, items, None) for _ in range(MAX_QUEUED_BATCHES))
        try:
            while (item := ready.popleft().result()) is not None:
                ready.append(reader.submit(next, items, None))
                yield item
        finally:
            reader.shutdown(cancel_futures=True)
