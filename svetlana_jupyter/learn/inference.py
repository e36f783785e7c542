"""Prediction of the objects of an image, while a thread reads the next blocks.

The objects of a few neighboring blocks form a part: the unit that is stored, resumed or sent to another machine. The
batches of a part do not depend on which other parts are predicted, so its probabilities are equal bit by bit.
"""

from __future__ import annotations

import queue
import threading
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
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
    from collections.abc import Collection, Generator, Iterator, Mapping, Sequence

    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.learn.classifier import Classifier

Labels = NDArray[np.int64]
Floats = NDArray[np.float32]
InputBatch = tuple[Labels, Floats]

BATCH_SIZES = {2: 32, 3: 8}  # feature maps of this many patches stay in the cache of a CPU
# Less than a second of work per part for a network. Features are stored for many objects at a time.
OBJECTS_PER_PART = {("network", 2): 512, ("network", 3): 128, ("forest", 2): 10_000, ("forest", 3): 10_000}
MAX_QUEUED_BATCHES = 8  # batches cut ahead
POLL_SECONDS = 0.1  # between two checks for a stop by the reading thread


@dataclass(frozen=True)
class PredictionBatch:
    """Class probabilities of a batch of objects.

    Parameters
    ----------
    objects : int64 of shape (n,)
        Labels of the objects.
    probabilities : float32 of shape (n, k)
        One column per class, in the order of ``classifier.classes``.
    done, total : int
        Objects classified so far, including this batch, and in total.
    novelty : float32 of shape (m,)
        Distance of the compared objects from the annotated ones (`learn.novelty`).
    """

    objects: Labels
    probabilities: Floats
    done: int
    total: int
    novelty: Floats


@dataclass(frozen=True)
class PartFinished:
    """Event at the end of a part, when all its readable objects are classified.

    Parameters
    ----------
    part : int
    failed : dict of int to str
        Objects whose pixels cannot be decoded, with the reason.
    """

    part: int
    failed: Mapping[int, str]


ScoredBatch = tuple[InputBatch, Floats] | PartFinished  # a batch with the novelty of some objects, or the end of a part


def predict(
    pair: ImagePair,
    objects: pd.DataFrame,
    classifier: Classifier,
    batch_size: int | None = None,
    reference: ReferenceDistribution | None = None,
) -> Iterator[PredictionBatch]:
    """Classify objects, in the order of the image's blocks.

    One background thread reads and cuts while the classifier works; batches are filled across blocks. Closing the
    generator stops both.

    Parameters
    ----------
    pair : ImagePair
    objects : DataFrame
        Rows of `core.objects.index_objects`.
    classifier : Classifier
    batch_size : int, optional
        Objects classified at a time; by default 32 in 2D and 8 in 3D.
    reference : ReferenceDistribution, optional
        Distribution of the annotated objects; some objects of the image are compared with it.

    Raises
    ------
    ClassifierError
        At once, if the classifier does not fit the image.
    DamagedError
        If the pixels of an object cannot be decoded.
    """
    classifier.check(pair)
    parts = dict(enumerate(split_into_parts(pair, objects, classifier)))
    return _raise_failures(predict_parts(pair, parts, classifier, batch_size, reference))


def predict_parts(
    pair: ImagePair,
    parts: Mapping[int, pd.DataFrame],
    classifier: Classifier,
    batch_size: int | None = None,
    reference: ReferenceDistribution | None = None,
    compared: Collection[int] | None = None,
) -> Generator[PredictionBatch | PartFinished]:
    """Classify the objects of some parts, decoding each block once.

    Parameters
    ----------
    pair : ImagePair
    parts : mapping of int to DataFrame
        Parts of `split_into_parts` by number, in their order.
    classifier : Classifier
    batch_size : int, optional
    reference : ReferenceDistribution, optional
    compared : collection of int, optional
        Objects to compare with ``reference``; by default `sample_for_novelty` of all given objects.

    Yields
    ------
    PredictionBatch
        Batch by batch.
    PartFinished
        After the last batch of each part.
    """
    total, done = sum(map(len, parts.values())), 0
    if compared is None and reference is not None and parts:
        compared = sample_for_novelty(pd.concat(list(parts.values())))
    compared = None if compared is None else frozenset(map(int, compared))
    size = batch_size or BATCH_SIZES[pair.ndim]
    cut = _cut_parts(pair, parts, classifier, size, reference, compared)
    # A single BLAS thread for cutting, which would otherwise take the cores of the network.
    with threadpool_limits(1, user_api="blas"), closing(_prefetch(cut)) as events:
        for event in events:
            if isinstance(event, PartFinished):
                yield event
            else:
                (labels, inputs), novelty = event
                done += len(labels)
                yield PredictionBatch(labels, classifier.classify(inputs), done, total, novelty)


def predict_part(
    pair: ImagePair,
    objects: pd.DataFrame,
    classifier: Classifier,
    reference: ReferenceDistribution | None = None,
    compared: Collection[int] | None = None,
) -> tuple[list[PredictionBatch], PartFinished]:
    """Classify the objects of one part on the calling thread; return what `predict_parts` yields for it."""
    failed: dict[int, str] = {}
    batches, done = [], 0
    for batch in _in_batches(_cut_readable(classifier, pair, objects, failed), BATCH_SIZES[pair.ndim]):
        done += len(batch[0])
        novelty = _novelty(batch, classifier, reference, compared)
        batches.append(PredictionBatch(batch[0], classifier.classify(batch[1]), done, len(objects), novelty))
    return batches, PartFinished(0, failed)


def split_into_parts(pair: ImagePair, objects: pd.DataFrame, classifier: Classifier) -> list[pd.DataFrame]:
    """Split the objects of an image into parts, each in the order of the image's blocks."""
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


def _raise_failures(events: Generator[PredictionBatch | PartFinished]) -> Iterator[PredictionBatch]:
    with closing(events):  # a stored traceback would keep it open, and its thread waiting
        for event in events:
            if isinstance(event, PredictionBatch):
                yield event
            elif event.failed:
                raise DamagedError(next(iter(event.failed.values())))


def _novelty(
    batch: InputBatch, classifier: Classifier, reference: ReferenceDistribution | None, compared: Collection[int] | None
) -> Floats:
    """Return the novelty of the compared objects of a batch."""
    labels, inputs = batch
    if reference is not None and compared is not None:
        chosen = np.fromiter((label in compared for label in labels.tolist()), bool, len(labels))
        if chosen.any():
            return reference.novelty(inputs[chosen], classifier.patches.mask_channel)
    return np.empty(0, np.float32)


def _cut_parts(
    pair: ImagePair,
    parts: Mapping[int, pd.DataFrame],
    classifier: Classifier,
    size: int,
    reference: ReferenceDistribution | None,
    compared: Collection[int] | None,
) -> Iterator[ScoredBatch]:
    """Yield the batches of each part with the novelty of their compared objects, and its end."""
    cache = ChunkCache(BlockDecoder(pair), blocks_per_part(pair, list(parts.values()), classifier))
    cached = with_fetched_blocks(pair, cache.fetch)
    for position, (number, objects) in enumerate(parts.items()):
        failed: dict[int, str] = {}
        for batch in _in_batches(_cut_readable(classifier, cached, objects, failed), size):
            yield batch, _novelty(batch, classifier, reference, compared)
        cache.release(position)
        yield PartFinished(number, failed)


def _cut_readable(
    classifier: Classifier, pair: ImagePair, objects: pd.DataFrame, failed: dict[int, str]
) -> Iterator[InputBatch]:
    """Yield the inputs of readable objects and add the others to ``failed``, by bisection."""
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
    waiting: list[InputBatch] = []
    count = 0
    for labels, inputs in pieces:
        while len(labels):
            taken = min(size - count, len(labels))
            waiting.append((labels[:taken], inputs[:taken]))
            labels, inputs, count = labels[taken:], inputs[taken:], count + taken
            if count == size:
                yield _concatenate(waiting)
                waiting, count = [], 0
    if waiting:
        yield _concatenate(waiting)


def _concatenate(pieces: list[InputBatch]) -> InputBatch:
    if len(pieces) == 1:
        return pieces[0]
    labels, inputs = zip(*pieces)
    return np.concatenate(labels), np.concatenate(inputs)


def _prefetch(pieces: Iterator[ScoredBatch]) -> Generator[ScoredBatch]:
    """Yield the items of ``pieces``, taken ahead by a thread that ends with this generator."""
    ready: queue.Queue[ScoredBatch | BaseException | None] = queue.Queue(maxsize=MAX_QUEUED_BATCHES)
    ending = threading.Event()

    def put(item: ScoredBatch | BaseException | None) -> None:
        while not ending.is_set():
            try:
                return ready.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue

    def read() -> None:
        try:
            for piece in pieces:
                put(piece)
                if ending.is_set():
                    return
            put(None)
        except BaseException as error:  # raised again where the pieces are used
            put(error)

    reader = threading.Thread(target=read, name="cutting patches", daemon=True)
    reader.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ending.set()
        reader.join()
