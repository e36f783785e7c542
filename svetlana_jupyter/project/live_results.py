"""Predictions of the live classifier for one state of the labels.

The classifier is a weighted least-squares fit to the features of the labeled objects, and then its average with a small
random forest (`learn.live_head`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from svetlana_jupyter.core.io.table_files import format_list
from svetlana_jupyter.core.queries import FIRST_REGULARIZATION
from svetlana_jupyter.core.stats.metrics import Estimate, score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from svetlana_jupyter.core.classes import ClassScheme
    from svetlana_jupyter.learn.live_head import LiveModel
    from svetlana_jupyter.project.feature_matrix import FeatureMatrix, ImageFeatures
    from svetlana_jupyter.project.jobs import Stop

    Check = Callable[[], None]  # raises `_StoppedError` to stop

ROWS_PER_BLOCK = 8192  # objects predicted at a time, to limit memory
MIN_SCORED = 5  # labels drawn at random of a class that is scored
MAX_FOLDS = 5
NO_SCORE = "Not enough labels for a score"
Stage = Literal["", "least squares", "average"]


@dataclass(frozen=True, eq=False)
class LabeledFeatures:
    """Labels and features of one moment, from which the live classifier is fitted.

    Attributes
    ----------
    generation : int
        Number of the update.
    matrix : FeatureMatrix
    labels : Series of int
        Class ids of the labeled objects outside the test set, by ``(image, object)``. Those without features are not
        learned from.
    drawn : bool array of shape (n,)
        Which of them were drawn uniformly at random.
    groups : str array of shape (n,)
        Group of each labeled object (`core.groups.name_groups`).
    hidden : mapping of image name to frozenset of int
        Objects of the test set whose predictions are hidden.
    """

    generation: int
    matrix: FeatureMatrix
    labels: pd.Series[int]
    drawn: NDArray[np.bool_]
    groups: NDArray[np.str_]
    hidden: Mapping[str, frozenset[int]]


@dataclass(frozen=True, eq=False)
class ImagePredictions:
    """Class probabilities (n, k) of the objects of an image; NaN without features.

    Those of labeled objects are leave-one-out predictions (`live_results`).
    """

    mask: int
    fingerprint: str
    labels: pd.Index
    probabilities: NDArray[np.float32]
    classes: tuple[int, ...]

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """Class ids (n,) of the predictions; 0 without features."""
        known = ~np.isnan(self.probabilities[:, 0])
        return np.where(known, np.array(self.classes)[self.probabilities.argmax(axis=1)], 0)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Predictions in the format of `Run.read_predictions`."""
        known = self.predicted > 0
        p = self.probabilities[known]
        columns = {"predicted": self.predicted[known], "probability": p.max(axis=1, initial=0)}
        columns |= {f"p_{class_id}": p[:, column] for column, class_id in enumerate(self.classes)}
        table = pd.DataFrame(columns, self.labels[known].rename("object"))
        table.attrs |= {"mask": self.mask, "image": self.fingerprint}
        return table


@dataclass(frozen=True, eq=False)
class LiveResult:
    """Predictions of the live classifier for one state of the labels.

    Attributes
    ----------
    data : LabeledFeatures
    stage : {"", "least squares", "average"}
    images : mapping of image name to ImagePredictions
    counts : mapping of int to int
        Number of predicted objects of each class id.
    labels : Series of int
        Labels that the classifier was fitted to: those of ``data`` with features.
    held_out : DataFrame or None
        Held-out predictions by group, for the score (`Run.held_out`).
    regularization : float
    model : LiveModel or None
        Average of least squares and trees; None before the trees are fitted.
    """

    data: LabeledFeatures
    stage: Stage
    images: Mapping[str, ImagePredictions]
    counts: Mapping[int, int]
    labels: pd.Series[int]
    held_out: pd.DataFrame | None = None
    regularization: float = FIRST_REGULARIZATION
    model: LiveModel | None = None

    def probabilities(self, objects: pd.Index) -> NDArray[np.float32]:
        """Return the probabilities (n, k) of pairs ``(image, object)``; NaN if unknown."""
        found = np.full((len(objects), self.labels.nunique()), np.nan, np.float32)
        names, labels = objects.get_level_values(0), objects.get_level_values(1)
        for name, image in self.images.items():
            places = np.flatnonzero(names == name)
            rows = image.labels.get_indexer(labels[places])
            found[places[rows >= 0]] = image.probabilities[rows[rows >= 0]]
        return found


def live_results(data: LabeledFeatures, stop: Stop) -> Iterator[LiveResult]:
    """Fit the live classifier and predict all objects, in ever better results.

    A labeled object is predicted from all other labels, so that a wrong label shows as a difference: by exact
    leave-one-out of least squares, and by the trees that were trained without it. The only label of a class is the
    exception, since the others know nothing of its class.

    Parameters
    ----------
    data : LabeledFeatures
    stop : callable

    Yields
    ------
    LiveResult
        Of least squares, of the average with the forest, and the latter again with held-out predictions of the labels.
    """
    from svetlana_jupyter.learn.live_head import LiveModel, fit_least_squares, fit_live_forest

    has_features, features = data.matrix.find(data.labels.index)
    labels, groups = data.labels[has_features], data.groups[has_features]
    classes, codes = np.unique(labels.to_numpy(np.int64), return_inverse=True)
    ids = tuple(classes.tolist())
    if len(ids) < 2:
        return
    has_others = np.bincount(codes)[codes] > 1
    predict_all = partial(_predict_images, data.matrix, ids, stop, labels.index[has_others])
    head = fit_least_squares(features, codes)
    left_out = head.leave_one_out[has_others]
    images = predict_all(left_out, lambda image, rows: head.from_products(image.project(head.weights, rows)))
    if images is None:
        return
    counts = count_shown(images, data.hidden)
    first = LiveResult(data, "least squares", images, counts, labels, regularization=head.regularization)
    yield first
    columns = data.matrix.fitted.forest_columns
    try:
        forest = fit_live_forest(features[:, columns], codes, check=partial(_check, stop))
    except _StoppedError:
        return

    def average(image: ImageFeatures, rows: slice) -> NDArray[np.float32]:
        sharpened = forest.probabilities(image.read(rows)[:, columns])
        return np.asarray((images[image.name].probabilities[rows] + sharpened) / 2, np.float32)

    left_out = (head.leave_one_out + forest.out_of_bag) / 2
    averaged = predict_all(left_out[has_others], average)
    if averaged is None:
        return
    model = LiveModel(head, forest, columns)
    second = replace(first, stage="average", images=averaged, counts=count_shown(averaged, data.hidden), model=model)
    yield second
    try:
        probabilities, folds = _held_out(features, codes, groups, columns, partial(_check, stop))
    except _StoppedError:  # leave-one-out must not stand for groups
        return
    table = labels.index.to_frame(index=False)
    table = table.assign(group=groups, fold=folds, drawn=data.drawn[has_features], truth=labels.to_numpy(np.int64))
    probabilities = left_out if probabilities is None else probabilities
    table["predicted"] = classes[probabilities.argmax(axis=1)]
    yield replace(second, held_out=table.assign(**{f"p_{class_id}": p for class_id, p in zip(ids, probabilities.T)}))


class _StoppedError(Exception):
    """Error that ends a fit after a stop."""


def _check(stop: Stop) -> None:
    if stop():
        raise _StoppedError


def _predict_images(
    matrix: FeatureMatrix,
    classes: tuple[int, ...],
    stop: Stop,
    labeled: pd.Index,
    left_out: NDArray[np.float64],
    predict: Callable[[ImageFeatures, slice], NDArray[np.float32]],
) -> dict[str, ImagePredictions] | None:
    """Predict all objects with features, block by block; None if stopped.

    The predictions of ``labeled`` objects are ``left_out``.
    """
    images, names = {}, labeled.get_level_values("image")
    for name, image in matrix.images.items():
        present, n = image.is_present, len(image.labels)
        blocks = []
        for start in range(0, n, ROWS_PER_BLOCK):
            blocks.append(predict(image, slice(start, start + ROWS_PER_BLOCK)))
            if stop():
                return None
        p = np.concatenate(blocks) if blocks else np.zeros((0, len(classes)), np.float32)
        own = names == name
        p[image.labels.get_indexer(labeled[own].get_level_values("object"))] = left_out[own]
        p[~present | ~np.isfinite(p).all(axis=1)] = np.nan
        images[name] = ImagePredictions(image.mask, image.fingerprint, image.labels, p, classes)
    return images


def count_shown(images: Mapping[str, ImagePredictions], hidden: Mapping[str, frozenset[int]]) -> dict[int, int]:
    """Return the number of predicted objects of each class, without hidden ones."""
    counts: dict[int, int] = {}
    for name, image in images.items():
        shown = image.predicted[_is_shown(image, hidden.get(name, frozenset()))]
        for class_id in image.classes:
            counts[class_id] = counts.get(class_id, 0) + int((shown == class_id).sum())
    return counts


def _is_shown(image: ImagePredictions, hidden: frozenset[int]) -> NDArray[np.bool_]:
    return ~image.labels.isin(list(hidden)) if hidden else np.ones(len(image.labels), bool)


def count_changes(result: LiveResult, before: LiveResult | None) -> int | None:
    """Return how many shown objects have another predicted class than before.

    Objects without a prediction in either result do not count. None without an earlier result.
    """
    if before is None:
        return None
    changed = 0
    for name, image in result.images.items():
        old = before.images.get(name)
        if old is not None and old.mask == image.mask and len(old.labels) == len(image.labels):
            known = (image.predicted > 0) & (old.predicted > 0) & (image.predicted != old.predicted)
            changed += int((known & _is_shown(image, result.data.hidden.get(name, frozenset()))).sum())
    return changed


def _held_out(
    features: NDArray[np.float32], codes: NDArray[np.int64], groups: NDArray[np.str_], columns: slice, check: Check
) -> tuple[NDArray[np.float64] | None, NDArray[np.int64]]:
    """Predict each label by a classifier fitted to the labels of other groups.

    Returns
    -------
    probabilities : float64 of shape (n, k) or None
        None with a single group.
    folds : int64 of shape (n,)
    """
    from sklearn.model_selection import GroupKFold

    from svetlana_jupyter.learn.live_head import fit_least_squares, fit_live_forest

    n_groups, n_classes, folds = len(np.unique(groups)), int(codes.max()) + 1, np.ones(len(codes), np.int64)
    if n_groups < 2:
        return None, folds
    probabilities = np.zeros((len(codes), n_classes))
    splits = GroupKFold(min(MAX_FOLDS, n_groups)).split(features, codes, groups)
    for fold, (rest, part) in enumerate(splits, start=1):
        check()
        known, renumbered = np.unique(codes[rest], return_inverse=True)
        folds[part] = fold
        if len(known) < 2:
            probabilities[np.ix_(part, known)] = 1.0
            continue
        head = fit_least_squares(features[rest], renumbered)
        forest = fit_live_forest(features[rest, columns], renumbered, check=check)
        average = (head.probabilities(features[part]) + forest.probabilities(features[part, columns])) / 2
        probabilities[np.ix_(part, known)] = average
    return probabilities, folds


def mean_log_loss(table: pd.DataFrame, suffix: str = "") -> float:
    """Return the mean log loss of held-out predictions, clipped at 0.001.

    Parameters
    ----------
    table : DataFrame
        Columns ``truth`` and ``p_<class id>`` with a suffix. A class without a column has probability 0.
    suffix : str
    """
    rows = np.arange(len(table))
    columns = [f"p_{class_id}{suffix}" for class_id in table["truth"].unique()]
    p = table.reindex(columns=columns, fill_value=0.0).to_numpy(float)
    own = p[rows, pd.Index(table["truth"].unique()).get_indexer(table["truth"])]
    return float(abs(np.log(np.clip(own, 0.001, 1)).mean()))


def score_drawn_labels(held_out: pd.DataFrame, classes: ClassScheme) -> tuple[Estimate | None, str, pd.DataFrame]:
    """Return the balanced accuracy on labels of objects that were drawn at random.

    Returns
    -------
    score : Estimate or None
    text : str
        Source of the score and the classes that are left out, or why there is no score.
    table : DataFrame
        The scored rows of ``held_out``.
    """
    drawn = held_out[held_out["drawn"]].drop(columns="drawn")
    counts = drawn["truth"].value_counts()
    scored = counts.index[counts >= MIN_SCORED]
    table, estimate = drawn.iloc[:0], None
    if len(scored) > 1:
        table = drawn[drawn["truth"].isin(scored)].reset_index(drop=True)
        names = {info.id: info.name for info in classes}
        estimate = score(table["truth"], table["predicted"], names, table["group"]).balanced_accuracy
    return estimate, describe_sample(table, drawn["truth"], classes), table


def describe_sample(scored: pd.DataFrame, drawn: pd.Series[int], classes: ClassScheme) -> str:
    """Return the source of a score, or why there is none.

    Parameters
    ----------
    scored : DataFrame
        The scored labels, with columns ``truth`` and ``group``; empty without a score.
    drawn : Series of int
        Class ids of all labels of objects that were drawn at random, which may be more by now.
    classes : ClassScheme
    """
    if scored.empty:
        counts = drawn.value_counts().reindex(classes.ids, fill_value=0)
        known = format_list([f"{counts[info.id]} {info.name}" for info in classes])
        return f"{NO_SCORE}: it needs {MIN_SCORED} of each of two classes, drawn at random (so far {known})"
    number = f"{len(scored)} of {len(drawn)}" if len(drawn) > len(scored) else f"{len(scored)}"
    n_groups = scored["group"].nunique()
    source = f"{number} labels drawn at random" + (f" in {n_groups} groups" if n_groups > 1 else "")
    missing = [info.name for info in classes if info.id not in set(scored["truth"])]
    return source + (f", without {format_list(missing)}" if missing else "")
