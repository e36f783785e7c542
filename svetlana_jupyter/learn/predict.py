"""Classifying the objects of an image while its next blocks are read."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from svetlana_jupyter.core.pairing import ImagePair
from svetlana_jupyter.learn.classifier import Classifier
from svetlana_jupyter.learn.familiar import ASKED, Familiar

Labels = NDArray[np.int64]
Floats = NDArray[np.float32]
Cut = tuple[Labels, Floats]

BATCH = {2: 64, 3: 8}
QUEUED = 4  # pieces cut ahead, each of at most some tens of megabytes
PATIENCE = 0.1  # seconds between two looks at whether reading shall stop


@dataclass(frozen=True)
class Predicted:
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
        How far some of them are from all annotated objects (`learn.familiar`), those that were asked.
    """

    objects: Labels
    probabilities: Floats
    done: int
    total: int
    unlike: Floats


def predict(
    pair: ImagePair,
    objects: pd.DataFrame,
    classifier: Classifier,
    batch_size: int | None = None,
    familiar: Familiar | None = None,
) -> Iterator[Predicted]:
    """Classify objects, in the order of the image's blocks.

    One background thread reads and cuts while the classifier works; batches are filled across blocks. Closing the
    generator stops both.

    Parameters
    ----------
    objects : DataFrame
        Rows of `core.objects.index_objects`.
    batch_size : int, optional
        Objects classified at a time; by default 64 in 2D and 8 in 3D.
    familiar : Familiar, optional
        What the classifier's training knew of how objects look; some of the image's are compared with it.

    Raises
    ------
    ClassifierError
        At once, if the classifier does not fit the image.
    """
    classifier.check(pair)
    return _predictions(pair, objects, classifier, batch_size or BATCH[pair.ndim], familiar)


def _predictions(
    pair: ImagePair, objects: pd.DataFrame, classifier: Classifier, batch_size: int, familiar: Familiar | None
) -> Iterator[Predicted]:
    done, asked = 0, np.empty(0, np.int64)
    if familiar is not None:
        asked = np.random.default_rng(0).permutation(objects.index.to_numpy(np.int64))[:ASKED]
    for labels, inputs in _in_batches(_ahead(classifier.cut(pair, objects)), batch_size):
        probabilities = classifier.classify(inputs)
        done += len(labels)
        unlike, chosen = np.empty(0, np.float32), np.isin(labels, asked)
        if familiar is not None and chosen.any():
            unlike = familiar.unlike(inputs[chosen], classifier.patches.mask_channel)
        yield Predicted(labels, probabilities, done, len(objects), unlike)


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
    return np.concatenate([labels for labels, _ in pieces]), np.concatenate([inputs for _, inputs in pieces])


def _ahead(pieces: Iterator[Cut]) -> Iterator[Cut]:
    """Yield what ``pieces`` yields, taken ahead of time by a thread that ends when this generator does."""
    ready: queue.Queue[Cut | BaseException | None] = queue.Queue(maxsize=QUEUED)
    closing = threading.Event()

    def put(item: Cut | BaseException | None) -> None:
        while not closing.is_set():
            try:
                return ready.put(item, timeout=PATIENCE)
            except queue.Full:
                continue

    def read() -> None:
        try:
            for piece in pieces:
                put(piece)
                if closing.is_set():
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
        closing.set()
        reader.join()
