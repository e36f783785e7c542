"""Review queues: the order in which objects are shown to the annotator.

A queue yields all objects. The caller leaves out objects that are labeled or skipped already, so that a queue can be
resumed without repetition after the project is reopened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from svetlana_jupyter.core.annotations import ObjectId
from svetlana_jupyter.core.objects import centroid_columns
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike


class QueuedObject(NamedTuple):
    """Object in a review queue, with the reason why it is shown."""

    image: str
    label: int
    reason: str

    @property
    def id(self) -> ObjectId:
        """Identifier of the object."""
        return ObjectId(self.image, self.label)


def random_order(objects: Mapping[str, ArrayLike], seed: int = 0) -> Iterator[QueuedObject]:
    """Yield all objects of all images in random order (paper, section 2.2).

    Parameters
    ----------
    objects : mapping of image name to array of int, shape (n,)
        Labels of the objects.
    seed : int
        The same objects and seed give the same order.

    >>> [c.label for c in random_order({"well": [1, 2, 3]}, seed=0)]
    [3, 1, 2]
    """
    names = list(objects)
    labels = [np.asarray(objects[name], dtype=np.int64) for name in names]
    image = np.repeat(np.arange(len(names)), [len(some) for some in labels])
    label = np.concatenate([*labels, np.empty(0, np.int64)])
    for i in np.random.default_rng(seed).permutation(len(label)):
        yield QueuedObject(names[image[i]], int(label[i]), "drawn at random")


def uncertainty_order(predictions: pd.DataFrame) -> Iterator[QueuedObject]:
    """Yield predicted objects, the prediction with the lowest probability first.

    Parameters
    ----------
    predictions : DataFrame
        Indexed by ``(image, object)``, with a column ``probability``.
    """
    order = predictions["probability"].dropna().sort_values(kind="stable")
    images, labels = order.index.get_level_values("image"), order.index.get_level_values("object")
    for image, label, probability in zip(images, labels, order):
        yield QueuedObject(str(image), int(label), f"predicted with probability {probability:.0%}")


def distance_order(
    image: str, objects: pd.DataFrame, label: int, spacing: Sequence[float] | None = None
) -> Iterator[QueuedObject]:
    """Yield the objects of an image by their distance from a given object.

    Parameters
    ----------
    objects : DataFrame
        Object table of the image.
    label : int
        Given object; distances are measured between centroids.
    spacing : sequence of float, optional
        Micrometers per pixel, ``([z,] y, x)``; distances are in pixels if it is None.
    """
    if label not in objects.index:
        raise InputError(f"Image {image!r} has no object {label}. Choose another object.")
    columns = [column for column in centroid_columns(3) if column in objects]
    places = objects[columns].to_numpy(float) * (1.0 if spacing is None else np.asarray(spacing, float))
    distance = np.linalg.norm(places - places[objects.index.get_loc(label)], axis=1)
    labels, unit = objects.index.to_numpy(), "px" if spacing is None else "µm"
    for i in np.argsort(distance, kind="stable"):
        if labels[i] != label:
            yield QueuedObject(image, int(labels[i]), f"{distance[i]:.0f} {unit} from object {label}")


def test_set_order(objects: Sequence[ObjectId]) -> Iterator[QueuedObject]:
    """Yield the objects of a test set in the order in which they were drawn.

    The order is random, so that the objects that are reviewed first are a random sample, too.

    >>> [c.reason for c in test_set_order([ObjectId("A1", 7), ObjectId("A2", 3)])]
    ['1 of 2 of the test set', '2 of 2 of the test set']
    """
    for position, object_id in enumerate(objects, 1):
        yield QueuedObject(*object_id, f"{position:,} of {len(objects):,} of the test set")


def image_order(objects: Iterable[tuple[str, ArrayLike]]) -> Iterator[QueuedObject]:
    """Yield objects image by image, in the order of their labels.

    Parameters
    ----------
    objects : iterable of (image name, array of int of shape (n,))
        An image is requested only after all objects of the previous ones.

    >>> [c.reason for c in image_order([("A1", [3, 7]), ("A2", [1])])]
    ['1 of 2 in A1', '2 of 2 in A1', '1 of 1 in A2']
    """
    for name, labels in objects:
        labels = np.sort(np.asarray(labels, np.int64))
        for position, label in enumerate(labels.tolist(), 1):
            yield QueuedObject(name, label, f"{position:,} of {len(labels):,} in {name}")


def group_by_image(objects: Iterable[QueuedObject], current: str = "") -> list[QueuedObject]:
    """Group objects by image, so that the annotator rarely changes the image.

    The displayed image comes first; the others follow in the order of their first object.

    >>> objects = [QueuedObject("A1", 3, ""), QueuedObject("A2", 5, ""), QueuedObject("A1", 9, "")]
    >>> [queued.label for queued in group_by_image(objects)]
    [3, 9, 5]
    >>> [queued.label for queued in group_by_image(objects, current="A2")]
    [5, 3, 9]
    """
    objects = list(objects)
    order = {name: place for place, name in enumerate(dict.fromkeys([current, *(each.image for each in objects)]))}
    return sorted(objects, key=lambda each: order[each.image])
