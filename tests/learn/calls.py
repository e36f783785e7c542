"""Calls that collect training data and predict an image in one step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svetlana_jupyter.errors import DamagedError
from svetlana_jupyter.learn.dataset import collect_for_each
from svetlana_jupyter.learn.inference import PredictionBatch, predict_parts, sample_for_novelty, split_into_parts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import numpy as np
    import pandas as pd

    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.core.settings import TrainingSettings
    from svetlana_jupyter.learn.classifier import Classifier
    from svetlana_jupyter.learn.dataset import AnnotatedImage, TrainingData
    from svetlana_jupyter.learn.novelty import ReferenceDistribution


def collect_training_data(
    parts: Iterable[AnnotatedImage], settings: TrainingSettings, names: Mapping[int, str] | None = None
) -> TrainingData:
    """Cut or measure all annotated objects for one training."""
    *_, (samples,) = collect_for_each(parts, [settings], names)
    return samples


def cut(classifier: Classifier, pair: ImagePair, objects: pd.DataFrame) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield labels (n,) and inputs (n, ...) of the objects, block by block."""
    for labels, inputs in classifier.read(pair, objects, len(objects)):
        yield labels, inputs()


def predict(
    pair: ImagePair,
    objects: pd.DataFrame,
    classifier: Classifier,
    batch_size: int | None = None,
    reference: ReferenceDistribution | None = None,
) -> Iterator[PredictionBatch]:
    """Yield the predictions of the objects of an image; raise the first read error."""
    parts = dict(enumerate(split_into_parts(pair, objects, classifier)))
    for event in predict_parts(pair, parts, classifier, reference, sample_for_novelty(objects), batch_size):
        if isinstance(event, PredictionBatch):
            yield event
        elif event.failed:
            raise DamagedError(next(iter(event.failed.values())))
