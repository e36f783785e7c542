"""The prediction job: a run's classifier over the objects of images, one whole file an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from svetlana_jupyter.core.pairing import ImagePair
from svetlana_jupyter.project.jobs import Progress, Stop
from svetlana_jupyter.project.runs import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch.nn import Module


@dataclass(frozen=True)
class ImagePredicted:
    """All objects of an image are predicted and on disk."""

    run: str
    image: str
    count: int


def predict_images(
    pairs: Mapping[str, ImagePair],
    objects: Callable[[str], pd.DataFrame],
    run: Run,
    threads: int,
    stop: Stop,
    masks: Mapping[str, int],
    network: Module | None = None,
) -> Iterator[Progress | ImagePredicted]:
    """Predict images one after the other on so many torch threads; a stop keeps those that are done.

    Every image is checked against the classifier before the first one is predicted. ``masks`` says which of its masks
    each image has, which is kept with its predictions: they are of the objects of that mask. ``network`` is the user's
    own, where the run was trained with one that was given as an object.
    """
    from svetlana_jupyter.learn.classifier import load_classifier
    from svetlana_jupyter.learn.device import limit_threads
    from svetlana_jupyter.learn.familiar import Familiar
    from svetlana_jupyter.learn.predict import predict

    yield Progress(0, 1, "opening")
    classifier, familiar = load_classifier(run.path, network), Familiar.load(run.path)
    limit_threads(threads)
    for pair in pairs.values():
        classifier.check(pair)
    tables = {name: objects(name) for name in pairs}
    total = sum(map(len, tables.values()))
    before = 0
    for name, pair in pairs.items():
        labels: list[NDArray[np.int64]] = []
        probabilities: list[NDArray[np.float32]] = []
        unlike: list[NDArray[np.float32]] = []
        done = 0
        for part in predict(pair, tables[name], classifier, familiar=familiar):
            labels.append(part.objects)
            probabilities.append(part.probabilities)
            unlike.append(part.unlike)
            done += len(part.objects)
            yield Progress(before + done, total, f"predicting {name}")
            if stop():
                return
        before += len(tables[name])
        table = prediction_table(labels, probabilities, classifier.classes)
        table.attrs |= {"mask": masks[name], **_asked(unlike)}
        run.write_predictions(name, table)
        yield ImagePredicted(run.name, name, done)


def prediction_table(
    labels: list[NDArray[np.int64]], probabilities: list[NDArray[np.float32]], class_ids: tuple[int, ...]
) -> pd.DataFrame:
    """Return the table of an image: indexed by object, ``predicted``, ``probability`` and ``p_<class id>`` each."""
    p = np.concatenate([*probabilities, np.empty((0, len(class_ids)), np.float32)])
    index = pd.Index(np.concatenate([*labels, np.empty(0, np.int64)]), name="object")
    table = pd.DataFrame(p, index, [f"p_{id}" for id in class_ids])
    table.insert(0, "predicted", np.asarray(class_ids)[p.argmax(1)] if len(p) else np.empty(0, np.int64))
    table.insert(1, "probability", p.max(1) if len(p) else np.empty(0, np.float32))
    return table.sort_index()


def _asked(unlike: list[NDArray[np.float32]]) -> dict[str, float]:
    """Return of how many objects it is known how they look, and the share of them unlike all annotated ones."""
    found = np.concatenate([*unlike, np.empty(0, np.float32)])
    return {"asked": len(found), "unlike": float((found > 1).mean())} if len(found) else {}
