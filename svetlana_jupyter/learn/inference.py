"""Classifying the objects of an image while its next blocks are read.

The objects of a few neighbouring blocks are a part: the unit that is kept, done again or sent to another machine. The
batches of a part are the same whichever other parts are predicted, so its probabilities are, bit by bit.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

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
from svetlana_jupyter.core.io.image_pair import ImagePair
from svetlana_jupyter.errors import DamagedError
from svetlana_jupyter.learn.classifier import Classifier
from svetlana_jupyter.learn.novelty import MAX_COMPARED, ReferenceDistribution

Labels = NDArray[np.int64]
Floats = NDArray[np.float32]
Cut = tuple[Labels, Floats]

BATCH_SIZES = {2: 32, 3: 8}  # whose maps stay in the cache of a processor
# Objects of a part: less than a second's work. What a forest measures is kept by many objects at a time.
OBJECTS_PER_PART = {("network", 2): 512, ("network", 3): 128, ("forest", 2): 10_000, ("forest", 3): 10_000}
MAX_QUEUED_BATCHES = 8  # batches cut ahead
POLL_SECONDS = 0.1  # seconds between two looks at whether reading shall stop


@dataclass(frozen=True)
class PredictionBatch:
    """The classes of some objects.

    Parameters
    ----------
    objects : int64 of shape (n,)
        Labels of the objects.
    probabilities : float32 of shape (n, k)
        One column a class, in the order of ``classifier.classes``.
    done, total : int
        Objects classified so far, these included, and in all.
    unlike : float32 of shape (m,)
        How far some of them are from all annotated objects (`learn.reference`), those that were asked.
    """

    objects: Labels
    probabilities: Floats
    done: int
    total: int
    novelty: Floats


@dataclass(frozen=True)
class PartFinished:
    """All objects of a part are classified, but those that cannot be seen.

    Parameters
    ----------
    part : int
    failed : dict of int to str
        Objects whose pixels do not decode, and why.
    """

    part: int
    failed: Mapping[int, str]


Ready = tuple[Cut, Floats] | PartFinished  # a batch and how unlike some of it are, or the end of a part


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
    objects : DataFrame
        Rows of `core.objects.index_objects`.
    batch_size : int, optional
        Objects classified at a time; by default 32 in 2D and 8 in 3D.
    familiar : Familiar, optional
        What the classifier's training knew of how objects look; some of the image's are compared with it.

    Raises
    ------
    ClassifierError
        At once, if the classifier does not fit the image.
    DamagedError
        If the pixels of an object do not decode.
    """
    classifier.check(pair)
    parts = dict(enumerate(split_into_parts(pair, objects, classifier)))
    return _all_or_nothing(predict_parts(pair, parts, classifier, batch_size, reference))


def predict_parts(
    pair: ImagePair,
    parts: Mapping[int, pd.DataFrame],
    classifier: Classifier,
    batch_size: int | None = None,
    reference: ReferenceDistribution | None = None,
    asked: Collection[int] | None = None,
) -> Generator[PredictionBatch | PartFinished]:
    """Classify the objects of some parts, each of the blocks under them decoded once.

    Parameters
    ----------
    parts : mapping of int to DataFrame
        Of those that `split_into_parts` gives, by number and in their order.
    asked : collection of int, optional
        Objects to compare with ``reference``; by default `sample_for_novelty` of all that are given.

    Yields
    ------
    Predicted
        Batch after batch.
    PartPredicted
        Behind the last batch of each part.
    """
    total, done = sum(map(len, parts.values())), 0
    if asked is None and reference is not None and parts:
        asked = sample_for_novelty(pd.concat(list(parts.values())))
    asked = None if asked is None else frozenset(map(int, asked))
    size = batch_size or BATCH_SIZES[pair.ndim]
    cut = _cut_parts(pair, parts, classifier, size, reference, asked)
    # One thread for the products of cutting, or they take the network's cores.
    with threadpool_limits(1, user_api="blas"), closing(_ahead(cut)) as events:
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
    asked: Collection[int] | None = None,
) -> tuple[list[PredictionBatch], PartFinished]:
    """Classify the objects of one part on the thread that calls: what `predict_parts` yields for it."""
    failed: dict[int, str] = {}
    found, done = [], 0
    for batch in _in_batches(_readable(classifier, pair, objects, failed), BATCH_SIZES[pair.ndim]):
        done += len(batch[0])
        novelty = _unlike(batch, classifier, reference, asked)
        found.append(PredictionBatch(batch[0], classifier.classify(batch[1]), done, len(objects), novelty))
    return found, PartFinished(0, failed)


def split_into_parts(pair: ImagePair, objects: pd.DataFrame, classifier: Classifier) -> list[pd.DataFrame]:
    """Return the objects of an image part after part, each in the order of the image's blocks."""
    centers = objects[["z", "y", "x"][-pair.ndim :]].to_numpy(float)
    least = OBJECTS_PER_PART[classifier.kind, pair.ndim]
    return [
        objects.iloc[some]
        for some in group_blocks_into_parts(centers, processing_block_shape(pair.image, pair.mask), least)
    ]


def blocks_per_part(pair: ImagePair, parts: Sequence[pd.DataFrame], classifier: Classifier) -> list[list[BlockKey]]:
    """Return for each part the blocks of the image and of its mask that cutting its objects reads."""
    return [list_needed_blocks(pair, classifier.windows(pair, part)) for part in parts]


def sample_for_novelty(objects: pd.DataFrame) -> Labels:
    """Return the objects of an image that are compared with annotated ones."""
    return np.random.default_rng(0).permutation(objects.index.to_numpy(np.int64))[:MAX_COMPARED]


def _all_or_nothing(events: Generator[PredictionBatch | PartFinished]) -> Iterator[PredictionBatch]:
    with closing(events):  # a traceback that is kept would keep it open, and its thread waiting
        for event in events:
            if isinstance(event, PredictionBatch):
                yield event
            elif event.failed:
                raise DamagedError(next(iter(event.failed.values())))


def _unlike(
    cut: Cut, classifier: Classifier, reference: ReferenceDistribution | None, asked: Collection[int] | None
) -> Floats:
    labels, inputs = cut
    if reference is None or asked is None:
        return np.empty(0, np.float32)
    chosen = np.fromiter((label in asked for label in labels.tolist()), bool, len(labels))
    if not chosen.any():
        return np.empty(0, np.float32)
    return reference.novelty(inputs[chosen], classifier.patches.mask_channel)


def _cut_parts(
    pair: ImagePair,
    parts: Mapping[int, pd.DataFrame],
    classifier: Classifier,
    size: int,
    reference: ReferenceDistribution | None,
    asked: Collection[int] | None,
) -> Iterator[Ready]:
    """Yield the batches of each part with how unlike some are, and that it ends."""
    cache = ChunkCache(BlockDecoder(pair), blocks_per_part(pair, list(parts.values()), classifier))
    cached = with_fetched_blocks(pair, cache.fetch)
    for position, (number, objects) in enumerate(parts.items()):
        failed: dict[int, str] = {}
        for batch in _in_batches(_readable(classifier, cached, objects, failed), size):
            yield batch, _unlike(batch, classifier, reference, asked)
        cache.release(position)
        yield PartFinished(number, failed)


def _readable(classifier: Classifier, pair: ImagePair, objects: pd.DataFrame, failed: dict[int, str]) -> Iterator[Cut]:
    """Yield what can be cut of some objects, and note the others in ``failed``: halves of halves are tried."""
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
            yield from _readable(classifier, pair, half, failed)


def _in_batches(pieces: Iterator[Cut], size: int) -> Iterator[Cut]:
    """Yield batches of ``size``, the last one smaller, of pieces of any size."""
    waiting: list[Cut] = []
    count = 0
    for labels, inputs in pieces:
        while len(labels):
            taken = min(size - count, len(labels))
            waiting.append((labels[:taken], inputs[:taken]))
            labels, inputs, count = labels[taken:], inputs[taken:], count + taken
            if count == size:
                yield _joined(waiting)
                waiting, count = [], 0
    if waiting:
        yield _joined(waiting)


def _joined(pieces: list[Cut]) -> Cut:
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate([labels for labels, _ in pieces]), np.concatenate([inputs for _, inputs in pieces])


def _ahead(pieces: Iterator[Ready]) -> Generator[Ready]:
    """Yield what ``pieces`` yields, taken ahead of time by a thread that ends when this generator does."""
    ready: queue.Queue[Ready | BaseException | None] = queue.Queue(maxsize=MAX_QUEUED_BATCHES)
    ending = threading.Event()

    def put(item: Ready | BaseException | None) -> None:
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
