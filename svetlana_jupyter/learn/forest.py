"""Random forest on object features, the baseline for every network.

Scikit-learn trains it. It is stored as plain arrays, so that saving needs no pickle and prediction no scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from svetlana_jupyter.core.features.catalog import VERSION, columns
from svetlana_jupyter.core.features.compute import feature_regions, iter_features
from svetlana_jupyter.errors import ClassifierError
from svetlana_jupyter.learn.dataset import TrainingData, make_classifier_spec
from svetlana_jupyter.learn.sampler import resolve_class_weights
from svetlana_jupyter.learn.specification import ClassifierBase, ClassifierSpec, Tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd
    from numpy.typing import NDArray

    from svetlana_jupyter.core.io.chunks import ArrayRegion
    from svetlana_jupyter.core.io.image_pair import ImagePair

TREES_PER_STEP = 50  # trees between two checks for a stop: about 0.05 s for some hundred objects
ROWS_PER_CHUNK = 2048  # rows classified at a time, to bound the memory of one step through all trees


@dataclass(frozen=True)
class Trees:
    """All trees of a forest, with their nodes concatenated.

    Parameters
    ----------
    roots : int64 of shape (trees,)
        The first node of each tree.
    left, right : int32 of shape (nodes,)
        Positions of the children; -1 in leaves.
    feature : int32, threshold : float64 of shape (nodes,)
        The left child is next if the feature is at most the threshold.
    value : float64 of shape (nodes, classes)
        Shares of the classes.
    """

    roots: NDArray[np.int64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    value: NDArray[np.float64]

    def probabilities(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the mean class shares (n, classes) for feature values (n, features)."""
        nodes = np.broadcast_to(self.roots, (len(values), len(self.roots))).copy()
        rows = np.arange(len(values))[:, None]
        while (inner := self.left[nodes] >= 0).any():
            goes_left = values[rows, np.maximum(self.feature[nodes], 0)] <= self.threshold[nodes]
            nodes = np.where(inner, np.where(goes_left, self.left[nodes], self.right[nodes]), nodes)
        total = np.zeros((len(values), self.value.shape[1]))
        for tree in range(len(self.roots)):  # in the order of scikit-learn, which makes the sums equal bit by bit
            total += self.value[nodes[:, tree]]
        return total / len(self.roots)


class ForestClassifier(ClassifierBase):
    """Trees with their specification."""

    kind = "forest"

    def __init__(self, specification: ClassifierSpec, trees: Trees) -> None:
        self.specification = specification
        self.trees = trees

    def cut(self, pair: ImagePair, objects: pd.DataFrame) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield labels (n,) and features (n, features) of the objects, block by block."""
        settings = self.specification.settings
        return iter_features(pair, objects, settings.measurements, settings.patches.unit)

    def windows(self, pair: ImagePair, objects: pd.DataFrame) -> list[ArrayRegion]:
        """Return the regions of the image that `cut` reads for these objects."""
        return feature_regions(pair, objects, self.specification.settings.measurements)

    def with_test_time_augmentation(self) -> Self:
        """Raise a `ClassifierError`: features do not depend on flips and rotations."""
        raise ClassifierError(
            "A forest classifies features, so there are no flipped or rotated views to average over. "
            "Predict without average=True."
        )

    def classify(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return probabilities (n, number of classes) of features (n, features)."""
        starts = range(0, len(inputs), ROWS_PER_CHUNK)
        parts = [self.trees.probabilities(inputs[start : start + ROWS_PER_CHUNK]) for start in starts]
        return np.concatenate([np.zeros((0, len(self.classes))), *parts]).astype(np.float32)

    def tensors(self) -> Tensors:
        """Return the arrays of the trees by name."""
        return dict(vars(self.trees))

    @classmethod
    def from_tensors(cls, specification: ClassifierSpec, tensors: Tensors) -> Self:
        """Build a forest from its stored arrays.

        Raises
        ------
        ClassifierError
            If it was trained on features of another version, or the arrays are not those of a forest.
        """
        if (specification.features, specification.features_version) != _current_features(specification):
            raise ClassifierError(
                "This forest was trained on features of another version of svetlana-jupyter. Train it again."
            )
        try:
            return cls(specification, Trees(**tensors))
        except TypeError as error:
            raise ClassifierError(f"The weights are not those of a forest: {error}. Train it again.") from error


def fit_forest(samples: TrainingData, stop: Callable[[], bool] | None = None) -> ForestClassifier:
    """Train a class-balanced forest; a stop keeps the trees trained so far."""
    from sklearn.ensemble import RandomForestClassifier

    settings = samples.settings
    model = RandomForestClassifier(
        class_weight=_sklearn_class_weights(samples), random_state=settings.seed, n_jobs=1, warm_start=True
    )
    for count in [*range(TREES_PER_STEP, settings.trees, TREES_PER_STEP), settings.trees]:
        model.n_estimators = count
        model.fit(samples.inputs, samples.targets)  # a warm start adds the same trees as a single fit
        if stop is not None and stop():
            break
    trees = [estimator.tree_ for estimator in model.estimators_]
    sizes = [tree.node_count for tree in trees]
    roots = np.cumsum([0, *sizes])[:-1].astype(np.int64)
    names = ("children_left", "children_right", "feature", "threshold", "value")
    left, right, feature, threshold, value = (np.concatenate([getattr(tree, n) for tree in trees]) for n in names)
    offsets = np.repeat(roots, sizes)
    left, right = (np.where(side >= 0, side + offsets, -1).astype(np.int32) for side in (left, right))
    specification = make_classifier_spec(samples, ())
    keys, features_version = _current_features(specification)
    specification = replace(specification, features=keys, features_version=features_version)
    return ForestClassifier(
        specification, Trees(roots, left, right, feature.astype(np.int32), threshold, value[:, 0, :])
    )


def _current_features(specification: ClassifierSpec) -> tuple[tuple[str, ...], int]:
    """Return the keys and version of the features that a forest would use today."""
    settings = specification.settings.measurements
    used = columns(specification.ndim, len(specification.channels), settings.groups, settings.may_use)
    return tuple(column.key for column in used), VERSION


def _sklearn_class_weights(samples: TrainingData) -> dict[int, float] | None:
    """Return scikit-learn's class weights: balanced, unless off or given by the user."""
    weights = samples.settings.class_weights
    if weights == "none":
        return None
    if isinstance(weights, dict):
        return resolve_class_weights(samples.targets, samples.settings, samples.names)
    # Spelled out, because scikit-learn warns of "balanced" together with a warm start.
    classes, counts = np.unique(samples.targets, return_counts=True)
    return dict(zip(classes.tolist(), (len(samples) / (len(classes) * counts)).tolist(), strict=True))
