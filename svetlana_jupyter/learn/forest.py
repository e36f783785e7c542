"""Random forest on object features, the baseline for every network.

The forest is trained with scikit-learn and stored as plain arrays, so that saving needs no pickle and prediction needs
no scikit-learn.
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
from svetlana_jupyter.learn.specification import ClassifierBase, ClassifierSpec, Tensors, UncutInputs, computed_inputs
from svetlana_jupyter.learn.tree_growing import grow_trees

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd
    from numpy.typing import NDArray
    from sklearn.tree import DecisionTreeClassifier

    from svetlana_jupyter.core.io.chunks import ArrayRegion
    from svetlana_jupyter.core.io.image_pair import ImagePair

TREES_PER_STEP = 50  # trees trained between two checks for a stop: about 0.05 s for a few hundred objects
SECONDS_PER_TREE = 0.0016  # training of one tree, on the machine to which `learn.networks.step_seconds` refers
ROWS_PER_CHUNK = 2048  # objects classified at a time, to limit memory


@dataclass(frozen=True)
class Trees:
    """All trees of a forest, with their nodes concatenated.

    Parameters
    ----------
    roots : int64 of shape (trees,)
        Position of the root node of each tree.
    left, right : int32 of shape (nodes,)
        Positions of the two children of each node; -1 for a leaf.
    feature : int32, threshold : float64 of shape (nodes,)
        Feature column and threshold of each node. Objects with values up to the threshold go to the left child.
    value : float64 of shape (nodes, classes)
        Class fractions of each node.
    """

    roots: NDArray[np.int64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    value: NDArray[np.float64]

    @classmethod
    def from_sklearn(cls, trees: Sequence[DecisionTreeClassifier]) -> Self:
        """Return fitted trees of scikit-learn."""
        nodes = [tree.tree_ for tree in trees]
        sizes = [each.node_count for each in nodes]
        roots = np.cumsum([0, *sizes])[:-1].astype(np.int64)
        names = ("children_left", "children_right", "feature", "threshold", "value")
        left, right, feature, threshold, value = (np.concatenate([getattr(each, n) for each in nodes]) for n in names)
        offsets = np.repeat(roots, sizes)
        left, right = (np.where(side >= 0, side + offsets, -1).astype(np.int32) for side in (left, right))
        return cls(roots, left, right, feature.astype(np.int32), threshold, value[:, 0, :])

    def check(self, features: int, classes: int) -> None:
        """Raise a `ValueError` unless every path through the trees ends in a leaf.

        Children follow their parent, so that the trees have no cycles.
        """
        n, positions = len(self.left), np.arange(len(self.left))
        same_length = all(part.shape == (n,) for part in (self.left, self.right, self.feature, self.threshold))
        if not same_length or self.value.shape != (n, classes) or self.roots.ndim != 1 or not len(self.roots):
            raise ValueError("its arrays do not fit together")
        if any(part.dtype.kind != "i" for part in (self.roots, self.left, self.right, self.feature)):
            raise ValueError("its nodes are not integers")
        inner = self.left >= 0
        for side in (self.left, self.right):
            if ((side <= positions) | (side >= n))[inner].any():
                raise ValueError("the child of a node does not follow it")
        if ((self.feature < 0) | (self.feature >= features))[inner].any() or np.isnan(self.threshold[inner]).any():
            raise ValueError("a node compares no feature")
        if ((self.roots < 0) | (self.roots >= n)).any() or not ((self.value >= 0) & (self.value <= 1.001)).all():
            raise ValueError("its roots or probabilities are invalid")

    def probabilities(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return class probabilities (n, classes) for feature values (n, features)."""
        nodes = np.broadcast_to(self.roots, (len(values), len(self.roots))).copy()
        rows = np.arange(len(values))[:, None]
        while (inner := self.left[nodes] >= 0).any():
            goes_left = values[rows, np.maximum(self.feature[nodes], 0)] <= self.threshold[nodes]
            nodes = np.where(inner, np.where(goes_left, self.left[nodes], self.right[nodes]), nodes)
        total = np.zeros((len(values), self.value.shape[1]))
        for tree in range(len(self.roots)):  # same order as scikit-learn, so that the sums are bitwise equal
            total += self.value[nodes[:, tree]]
        return total / len(self.roots)


class ForestClassifier(ClassifierBase):
    """Classifier based on a random forest."""

    kind = "forest"

    def __init__(self, specification: ClassifierSpec, trees: Trees) -> None:
        self.specification = specification
        self.trees = trees

    def read(self, pair: ImagePair, objects: pd.DataFrame, max_objects: int) -> Iterator[UncutInputs]:
        """Yield labels (n,) and functions that return features (n, features)."""
        settings = self.specification.settings
        return computed_inputs(iter_features(pair, objects, settings.measurements, settings.patches.unit))

    def windows(self, pair: ImagePair, objects: pd.DataFrame) -> list[ArrayRegion]:
        """Return the regions of the image that `read` reads for these objects."""
        return feature_regions(pair, objects, self.specification.settings.measurements)

    def with_test_time_augmentation(self) -> Self:
        """Raise a `ClassifierError`, because features have no flipped or rotated views."""
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
        """Create a classifier from its specification and stored arrays.

        Raises
        ------
        ClassifierError
            If the forest was trained on features of another version, or if the arrays do not describe a forest.
        """
        if (specification.features, specification.features_version) != _current_features(specification):
            raise ClassifierError(
                "This forest was trained on features of another version of svetlana-jupyter. Train it again."
            )
        try:
            trees = Trees(**tensors)
            trees.check(len(specification.features), len(specification.classes))
            return cls(specification, trees)
        except (TypeError, ValueError) as error:
            raise ClassifierError(f"The weights do not describe a forest: {error}. Train it again.") from error


def fit_forest(samples: TrainingData) -> ForestClassifier:
    """Train a random forest."""
    *_, forest = grow_forest(samples)
    assert isinstance(forest, ForestClassifier)
    return forest


def grow_forest(samples: TrainingData, stop: Callable[[], bool] | None = None) -> Iterator[int | ForestClassifier]:
    """Train a random forest; yield the number of trees so far from time to time.

    The last event is the forest; after a stop, with the trees trained so far.
    """
    settings, trees = samples.settings, []
    weights = _object_weights(samples)
    for tree, _ in grow_trees(samples.inputs, samples.targets, weights, len(samples), settings.trees, settings.seed):
        trees.append(tree)
        if len(trees) % TREES_PER_STEP == 0 or len(trees) == settings.trees:
            yield len(trees)
            if stop is not None and stop():
                break
    specification = make_classifier_spec(samples, ())
    keys, features_version = _current_features(specification)
    specification = replace(specification, features=keys, features_version=features_version)
    yield ForestClassifier(specification, Trees.from_sklearn(trees))


def _current_features(specification: ClassifierSpec) -> tuple[tuple[str, ...], int]:
    """Return the keys and version of the features that a new forest would use."""
    settings = specification.settings.measurements
    used = columns(specification.ndim, len(specification.channels), settings.groups, settings.may_use)
    return tuple(column.key for column in used), VERSION


def _object_weights(samples: TrainingData) -> NDArray[np.float64] | None:
    """Return the weight of each object, None for no weights."""
    weights = samples.settings.class_weights
    if weights == "none":
        return None
    if isinstance(weights, dict):
        by_class = resolve_class_weights(samples.targets, samples.settings, samples.names)
        return np.array([by_class[class_id] for class_id in samples.targets.tolist()], float)
    _, codes, counts = np.unique(samples.targets, return_inverse=True, return_counts=True)
    return np.asarray(len(samples) / (len(counts) * counts[codes]))
