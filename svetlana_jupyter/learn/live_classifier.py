"""Live classifier that can be stored: least squares averaged with trees.

It is the classifier that a project fits after each label (`learn.live_head`), with what the sources of its features
have learned. It is stored as plain arrays, so that reading it executes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from svetlana_jupyter.core.features.fitted_sources import FittedSource, FittedSources, standard_sources
from svetlana_jupyter.errors import ClassifierError
from svetlana_jupyter.learn.dataset import TrainingData, make_classifier_spec
from svetlana_jupyter.learn.forest import ROWS_PER_CHUNK, Trees
from svetlana_jupyter.learn.live_head import LeastSquaresHead, LiveModel, fit_live_model, sharpen
from svetlana_jupyter.learn.specification import (
    ClassifierBase,
    ClassifierSpec,
    SourceSpec,
    Tensors,
    UncutInputs,
    computed_inputs,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from svetlana_jupyter.core.features.feature_sources import FeatureSource
    from svetlana_jupyter.core.io.chunks import ArrayRegion
    from svetlana_jupyter.core.io.image_pair import ImagePair

SECONDS_PER_FIT = 0.25  # on the machine to which `learn.networks.step_seconds` refers
MAX_TEMPERATURE = 1000.0
MAX_WEIGHT = 1e6  # far above those of a fit to targets of -1 and 1


@dataclass(frozen=True, eq=False)
class LiveWeights:
    """Weights of least squares, and trees.

    Attributes
    ----------
    head : LeastSquaresHead
    trees : Trees
    temperature : float
        Exponent of the class fractions of the trees.
    """

    head: LeastSquaresHead
    trees: Trees
    temperature: float

    def check(self, features: int, columns: int, classes: int) -> None:
        """Raise a `ValueError` unless the arrays fit the features and classes."""
        if self.head.weights.shape != (features, classes) or self.head.bias.shape != (classes,):
            raise ValueError("its weights do not fit its features")
        temperatures = self.head.temperature, self.temperature
        if not all((np.abs(values) <= MAX_WEIGHT).all() for values in (self.head.weights, self.head.bias)):
            raise ValueError("its weights are not finite, or impossibly large")
        if not all(0 < value <= MAX_TEMPERATURE for value in temperatures):
            raise ValueError("its temperatures are not positive")
        self.trees.check(columns, classes)

    def probabilities(self, features: NDArray[np.float32], columns: slice) -> NDArray[np.float32]:
        """Return the class probabilities (n, k) of features (n, D)."""
        fractions = self.trees.probabilities(features[:, columns])
        own = sharpen(fractions, self.temperature).astype(np.float32)
        return np.asarray((self.head.probabilities(features) + own) / 2, np.float32)


class LiveClassifier(ClassifierBase):
    """Average of least squares and a forest of 60 trees on features of objects.

    Parameters
    ----------
    specification : ClassifierSpec
    sources : FittedSources
    weights : LiveWeights
    """

    kind = "live"

    def __init__(self, specification: ClassifierSpec, sources: FittedSources, weights: LiveWeights) -> None:
        self.specification = specification
        self.sources = sources
        self.weights = weights

    def read(self, pair: ImagePair, objects: pd.DataFrame, max_objects: int) -> Iterator[UncutInputs]:
        """Yield labels (n,) and functions that return their standardized features (n, D)."""
        return computed_inputs(self.sources.compute(pair, objects))

    def windows(self, pair: ImagePair, objects: pd.DataFrame) -> list[ArrayRegion]:
        """Return the regions of the image that `read` reads for these objects."""
        return self.sources.regions(pair, objects)

    def with_test_time_augmentation(self) -> Self:
        """Raise a `ClassifierError`, because features have no flipped or rotated views."""
        raise ClassifierError(
            "A live classifier classifies features, so there are no flipped or rotated views to average over. "
            "Predict without average=True."
        )

    def classify(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return probabilities (n, number of classes) of features (n, D)."""
        columns, starts = self.sources.forest_columns, range(0, len(inputs), ROWS_PER_CHUNK)
        parts = [self.weights.probabilities(inputs[start : start + ROWS_PER_CHUNK], columns) for start in starts]
        return np.concatenate([np.zeros((0, len(self.classes)), np.float32), *parts])

    def tensors(self) -> Tensors:
        """Return the weights, the trees and what the sources have learned, by name."""
        head, arrays = self.weights.head, {f"trees.{name}": part for name, part in vars(self.weights.trees).items()}
        arrays |= {"weights": head.weights, "bias": head.bias}
        arrays |= {"temperatures": np.array([head.temperature, self.weights.temperature])}
        for number, each in enumerate(self.sources.sources):
            arrays |= {f"source{number}.center": each.center, f"source{number}.scale": each.scale}
            arrays |= {f"source{number}.learned.{name}": np.asarray(part) for name, part in each.fitted.items()}
        return arrays

    @classmethod
    def from_tensors(
        cls, specification: ClassifierSpec, tensors: Tensors, encoders: Mapping[str, FeatureSource] | None = None
    ) -> Self:
        """Create a classifier from its specification and stored arrays.

        Parameters
        ----------
        specification : ClassifierSpec
        tensors : mapping of str to array
        encoders : mapping of str to FeatureSource, optional
            The user's encoders by the name of their source; required if the classifier uses them.

        Raises
        ------
        ClassifierError
            If the classifier was trained on features of another version, an encoder is missing, or the arrays do not
            describe a live classifier.
        """
        known = [_find_source(specification, each, encoders or {}) for each in specification.sources]
        try:
            fitted = [
                FittedSource(source, *_learned(tensors, number), each.sizes)
                for number, (source, each) in enumerate(zip(known, specification.sources, strict=True))
            ]
            for one in fitted:
                one.check()
                if len(one.fitted.get("mean", specification.channels)) != len(specification.channels):
                    raise ValueError("its patches have other channels")
            sources, classes = FittedSources(tuple(fitted)), len(specification.classes)
            weights = _read_weights(tensors)
            weights.check(sources.width, sources.forest_columns.stop, classes)
            return cls(specification, sources, weights)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise ClassifierError(f"The weights do not describe a live classifier: {error}. Train it again.") from error


def fit_live_classifier(samples: TrainingData) -> LiveClassifier:
    """Fit a live classifier to the features of labeled objects."""
    assert samples.sources is not None
    codes = np.searchsorted(samples.classes, samples.targets)
    sources = FittedSources(samples.sources.sources)
    model = fit_live_model(samples.inputs, codes, sources.forest_columns, samples.settings.seed)
    return make_live_classifier(make_classifier_spec(samples, ()), sources, model)


def make_live_classifier(specification: ClassifierSpec, sources: FittedSources, model: LiveModel) -> LiveClassifier:
    """Return a classifier that can be stored, from a fitted model and its sources."""
    described = tuple(SourceSpec(each.source.name, each.source.version, each.sizes) for each in sources.sources)
    weights = LiveWeights(model.head, Trees.from_sklearn(model.forest.trees), model.forest.temperature)
    return LiveClassifier(replace(specification, sources=described), sources, weights)


def _find_source(
    specification: ClassifierSpec, wanted: SourceSpec, encoders: Mapping[str, FeatureSource]
) -> FeatureSource:
    """Return a source of features by name and version."""
    import torch

    standard = standard_sources(specification.settings, specification.ndim, torch.get_num_threads())
    for source in standard:
        if source.name == wanted.name:
            if source.version != wanted.version:
                raise ClassifierError(
                    "This classifier was trained on features of another version of svetlana-jupyter. Train it again."
                )
            return source
    source_of_user = encoders.get(wanted.name)
    if source_of_user is None or source_of_user.version != wanted.version:
        problem = "are missing in this kernel" if source_of_user is None else "have changed since the training"
        raise ClassifierError(
            f"This classifier uses the features {wanted.name!r}, which {problem}. Call project.features.add with the "
            "encoder of the training, or train again."
        )
    return source_of_user


def _learned(
    tensors: Tensors, number: int
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64], NDArray[np.float64]]:
    """Return what a source has learned, and the centers and scales of its features."""
    start = f"source{number}.learned."
    learned = {name.removeprefix(start): array for name, array in tensors.items() if name.startswith(start)}
    center, scale = (tensors[f"source{number}.{name}"] for name in ("center", "scale"))
    arrays = {name: np.asarray(array, np.float64) for name, array in learned.items()}
    return arrays, np.asarray(center, np.float64), np.asarray(scale, np.float64)


def _read_weights(tensors: Tensors) -> LiveWeights:
    trees = Trees(**{name[6:]: array for name, array in tensors.items() if name.startswith("trees.")})
    first, second = tensors["temperatures"].tolist()
    weights, bias = (np.asarray(tensors[name], np.float32) for name in ("weights", "bias"))
    nothing = np.empty((0, len(bias)))
    return LiveWeights(LeastSquaresHead(weights, bias, first, np.nan, nothing, np.nan), trees, second)
