"""Which object comes next: small pure functions that order the objects of a project.

A queue returns candidates with the reason for each. What was labelled or skipped since is passed over by whoever asks,
so that a queue resumes after a reopening without repeating itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from svetlana_jupyter.core.annotations import ObjectId


class Candidate(NamedTuple):
    """An object that could be looked at next, and why."""

    image: str
    object: int
    reason: str

    @property
    def id(self) -> ObjectId:
        return ObjectId(self.image, self.object)


def random_order(objects: Mapping[str, ArrayLike], seed: int = 0) -> Iterator[Candidate]:
    """Yield every object once, uniformly at random over all images (paper, section 2.2).

    Parameters
    ----------
    objects : mapping of image name to array of int, shape (n,)
    seed : int
        The same objects and seed give the same order.

    >>> [c.object for c in random_order({"well": [1, 2, 3]}, seed=0)]
    [3, 1, 2]
    """
    names = list(objects)
    labels = [np.asarray(objects[name], dtype=np.int64) for name in names]
    image = np.repeat(np.arange(len(names)), [len(some) for some in labels])
    label = np.concatenate([*labels, np.empty(0, np.int64)])
    for i in np.random.default_rng(seed).permutation(len(label)):
        yield Candidate(names[image[i]], int(label[i]), "drawn at random")


def least_certain(predictions: pd.DataFrame) -> Iterator[Candidate]:
    """Yield predicted objects, the least probable first.

    Parameters
    ----------
    predictions : DataFrame
        Indexed by ``(image, object)``, with a column ``probability``.
    """
    order = predictions["probability"].dropna().sort_values(kind="stable")
    images, labels = order.index.get_level_values("image"), order.index.get_level_values("object")
    for image, label, probability in zip(images, labels, order):
        yield Candidate(str(image), int(label), f"predicted with {probability:.0%}")
