"""Predictions of all objects that follow each label: the live classifier of a project.

The classifier is a weighted least-squares fit to the features of the labeled objects, shown at once, and then its
average with a small random forest (`learn.live_head`). Only labels and features are stored; the fit is repeated when
the project is opened.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from svetlana_jupyter.core.groups import name_groups
from svetlana_jupyter.core.io.table_files import format_list
from svetlana_jupyter.core.stats.metrics import Estimate, score
from svetlana_jupyter.errors import ProjectError, SvetlanaError
from svetlana_jupyter.project.known_files import checked_live
from svetlana_jupyter.project.object_features import FeatureMatrix
from svetlana_jupyter.project.run_store import LIVE
from svetlana_jupyter.project.runs import Run

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from svetlana_jupyter.core.classes import ClassScheme
    from svetlana_jupyter.core.settings import TrainingSettings
    from svetlana_jupyter.project.annotation_store import Annotations
    from svetlana_jupyter.project.image_collection import ImageCollection
    from svetlana_jupyter.project.jobs import JobRunner, Stop
    from svetlana_jupyter.project.object_features import ImageFeatures, ObjectFeatures
    from svetlana_jupyter.project.project_classes import ProjectClasses
    from svetlana_jupyter.project.run_store import RunStore
    from svetlana_jupyter.project.test_set import TestSet

ROWS_PER_BLOCK = 8192  # objects predicted at a time, to limit memory
MIN_SCORED = 5  # labels drawn at random of a class that is scored
MAX_FOLDS = 5
REFRESH_SECONDS = 2.0  # between two updates while features are being computed
IDLE_SECONDS = 30.0  # after which the thread of the updates ends
TOO_FEW_CLASSES = "Label objects of two classes to see predictions."
NO_SCORE = "Not enough labels for a score"
NO_LABELS = pd.Series([], pd.MultiIndex.from_arrays([[], []], names=["image", "object"]), "int64")
Stage = Literal["", "least squares", "average"]


@dataclass(frozen=True)
class LiveState:
    """What the live classifier shows, for panels.

    Attributes
    ----------
    labels : int
        Number of labels that the classifier was fitted to.
    objects, missing : int
        Number of objects with a prediction, and of objects without one because their features are missing.
    counts : mapping of int to int
        Number of predicted objects of each class id.
    changed : int or None
        Number of objects whose predicted class changed with the last update; None for the first prediction.
    stage : {"", "least squares", "average"}
        Classifier that is shown; "" without a prediction.
    provisional : bool
        Whether features are still being computed.
    features_done, features_total : int
        Number of objects with features, and of all objects.
    score : Estimate or None
        Balanced accuracy on labels of objects that were drawn at random.
    score_text : str
        Source of the score, or why there is none.
    message : str
        Why there is no prediction; "" if there is one.
    """

    labels: int = 0
    objects: int = 0
    missing: int = 0
    counts: Mapping[int, int] = field(default_factory=dict)
    changed: int | None = None
    stage: Stage = ""
    provisional: bool = False
    features_done: int = 0
    features_total: int = 0
    score: Estimate | None = None
    score_text: str = ""
    message: str = ""


@dataclass(frozen=True, eq=False)
class LabeledFeatures:
    """Labels and features of one moment, from which the live classifier is fitted.

    Attributes
    ----------
    generation : int
        Number of the update.
    matrix : FeatureMatrix
    labels : Series of int
        Class ids of the labeled objects outside the test set, by ``(image, object)``.
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
    """Class probabilities (n, k) of the objects of an image; NaN without features."""

    mask: int
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
        table.attrs["mask"] = self.mask
        return table


@dataclass(frozen=True, eq=False)
class LiveResult:
    """Predictions of the live classifier for one state of the labels."""

    data: LabeledFeatures
    stage: Stage
    images: Mapping[str, ImagePredictions]
    counts: Mapping[int, int]
    held_out: pd.DataFrame | None = None


@dataclass(frozen=True)
class LiveRun(Run):
    """The live classifier as a run, whose predictions are not stored."""

    images: Mapping[str, ImagePredictions] = field(default_factory=dict, compare=False, repr=False)
    scored: pd.DataFrame | None = field(default=None, compare=False, repr=False)
    trained: pd.DataFrame | None = field(default=None, compare=False, repr=False)

    def held_out(self, architecture: str = "network") -> pd.DataFrame | None:
        """Return the predictions of labels that were drawn at random, as `Run.held_out`."""
        return self.scored if architecture == "network" else None

    def training_labels(self) -> pd.DataFrame | None:
        """Return the labels that the classifier was fitted to, as `Run.training_labels`."""
        return self.trained

    def read_predictions(self, image: str) -> pd.DataFrame | None:
        """Return the predictions for an image; None without features."""
        return self.images[image].table if image in self.images else None

    def predictions_attributes(self, image: str) -> dict[str, Any]:
        """Return no attributes, since predictions are not stored."""
        return {}

    def classifier_folder(self) -> Path:
        """Raise a `ProjectError`, because the live classifier is not stored."""
        raise ProjectError(
            "The live classifier predicts by itself and is not stored. Call project.live.update(), or train a "
            "classifier with project.train()."
        )


def live_results(data: LabeledFeatures, stop: Stop) -> Iterator[LiveResult]:
    """Fit the live classifier and predict all objects, in ever better results.

    Parameters
    ----------
    data : LabeledFeatures
    stop : callable

    Yields
    ------
    LiveResult
        Of least squares, of the average with the forest, and the latter again with held-out predictions of the labels.
    """
    from svetlana_jupyter.learn.live_head import fit_least_squares, fit_live_forest

    has_features, features = data.matrix.find(data.labels.index)
    classes, codes = np.unique(data.labels.to_numpy(np.int64)[has_features], return_inverse=True)
    ids = tuple(classes.tolist())
    if len(ids) < 2:
        return
    head = fit_least_squares(features, codes)
    images = _predict_images(
        data.matrix, ids, stop, lambda image, rows: head.from_products(image.project(head.weights, rows))
    )
    if images is None:
        return
    first = LiveResult(data, "least squares", images, _count(images, data.hidden))
    yield first
    columns = _forest_columns(data.matrix)
    forest = fit_live_forest(features[:, columns], codes)

    def average(image: ImageFeatures, rows: slice) -> NDArray[np.float32]:
        sharpened = forest.probabilities(image.read(rows)[:, columns])
        return (images[image.name].probabilities[rows] + sharpened) / 2

    averaged = _predict_images(data.matrix, ids, stop, average)
    if averaged is None:
        return
    second = LiveResult(data, "average", averaged, _count(averaged, data.hidden))
    yield second
    if stop():
        return
    probabilities, folds = _held_out(features, codes, data.groups[has_features], columns, stop)
    if probabilities is None:
        probabilities = (head.leave_one_out + forest.out_of_bag) / 2
    yield replace(second, held_out=_held_out_table(data, has_features, ids, probabilities, folds))


def _predict_images(
    matrix: FeatureMatrix,
    classes: tuple[int, ...],
    stop: Stop,
    predict: Callable[[ImageFeatures, slice], NDArray[np.float32]],
) -> dict[str, ImagePredictions] | None:
    """Predict all objects with features, block by block; None if stopped."""
    images = {}
    for name, image in matrix.images.items():
        present, n = image.is_present, len(image.labels)
        blocks = []
        for start in range(0, n, ROWS_PER_BLOCK):
            blocks.append(predict(image, slice(start, start + ROWS_PER_BLOCK)))
            if stop():
                return None
        p = np.concatenate(blocks) if blocks else np.zeros((0, len(classes)), np.float32)
        p[~present | ~np.isfinite(p).all(axis=1)] = np.nan
        images[name] = ImagePredictions(image.mask, image.labels, p, classes)
    return images


def _count(images: Mapping[str, ImagePredictions], hidden: Mapping[str, frozenset[int]]) -> dict[int, int]:
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


def _forest_columns(matrix: FeatureMatrix) -> NDArray[np.int64]:
    """Return the columns that the forest uses: all but those of oriented textures."""
    chosen = [np.arange(part.start, part.stop) for name, part in matrix.blocks.items() if name != "oriented"]
    return np.concatenate(chosen)


def _held_out(
    features: NDArray[np.float32],
    codes: NDArray[np.int64],
    groups: NDArray[np.str_],
    columns: NDArray[np.int64],
    stop: Stop,
) -> tuple[NDArray[np.float64] | None, NDArray[np.int64]]:
    """Predict each label by a classifier that was fitted to the labels of other groups.

    Returns
    -------
    probabilities : float64 of shape (n, k) or None
        None with a single group or after a stop.
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
        if stop():
            return None, folds
        known, renumbered = np.unique(codes[rest], return_inverse=True)
        folds[part] = fold
        if len(known) < 2:
            probabilities[np.ix_(part, known)] = 1.0
            continue
        head = fit_least_squares(features[rest], renumbered)
        forest = fit_live_forest(features[rest][:, columns], renumbered)
        average = (head.probabilities(features[part]) + forest.probabilities(features[part][:, columns])) / 2
        probabilities[np.ix_(part, known)] = average
    return probabilities, folds


def _held_out_table(
    data: LabeledFeatures,
    has_features: NDArray[np.bool_],
    classes: tuple[int, ...],
    probabilities: NDArray[np.float64],
    folds: NDArray[np.int64],
) -> pd.DataFrame:
    """Return held-out predictions of the labels, in the format of `Run.held_out`."""
    index = data.labels.index[has_features]
    table = pd.DataFrame({"image": index.get_level_values(0), "object": index.get_level_values(1)})
    table = table.assign(group=data.groups[has_features], fold=folds, drawn=data.drawn[has_features])
    table["truth"] = data.labels.to_numpy(np.int64)[has_features]
    table["predicted"] = np.array(classes)[probabilities.argmax(axis=1)]
    return table.assign(**{f"p_{class_id}": probabilities[:, column] for column, class_id in enumerate(classes)})


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
    counts = drawn["truth"].value_counts().reindex(classes.ids, fill_value=0)
    scored = [class_id for class_id in classes.ids if counts[class_id] >= MIN_SCORED]
    table = drawn[drawn["truth"].isin(scored)].reset_index(drop=True)
    names = {info.id: info.name for info in classes}
    if len(scored) < 2:
        return None, f"{NO_SCORE}: label {MIN_SCORED} objects of two classes that are drawn at random.", table
    estimate = score(table["truth"], table["predicted"], names, table["group"]).balanced_accuracy
    n_groups = table["group"].nunique()
    source = f"{len(table)} labels drawn at random" + (f" in {n_groups} groups" if n_groups > 1 else "")
    missing = [names[class_id] for class_id in classes.ids if class_id not in scored]
    return estimate, source + (f", without {format_list(missing)}" if missing else ""), table


class Live:
    """Live classifier of a project: follows the labels in the background, or in a script on demand.

    Parameters
    ----------
    features : ObjectFeatures
    images : ImageCollection
    annotations : Annotations
    test_set : TestSet
    classes : ProjectClasses
    runs : RunStore
    settings : callable
        Returns the training settings.
    jobs : JobRunner
    lock : threading.RLock
        Held while several of them are read in a consistent state.
    show : callable
        Called with the `LiveState` on the thread that created the project.
    report : callable
        Called with a problem on that thread.

    Attributes
    ----------
    state : LiveState
    result : LiveResult or None
        The predictions that are shown.
    urgent_objects : callable
        Returns the objects whose features are computed first, by image; set by a panel.
    """

    def __init__(
        self,
        features: ObjectFeatures,
        images: ImageCollection,
        annotations: Annotations,
        test_set: TestSet,
        classes: ProjectClasses,
        runs: RunStore,
        settings: Callable[[], TrainingSettings],
        jobs: JobRunner,
        lock: threading.RLock,
        show: Callable[[LiveState], None],
        report: Callable[[str], None],
    ) -> None:
        self._features, self._images, self._annotations, self._test_set = features, images, annotations, test_set
        self._classes, self._runs, self._settings, self._jobs, self._lock = classes, runs, settings, jobs, lock
        self._show, self._report = show, report
        self.state = LiveState()
        self.result: LiveResult | None = None
        self._is_following = False
        self._wanted, self._done = 0, 0
        self._last: dict[Stage, LiveResult] = {}
        self._scored = pd.DataFrame()
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self.urgent_objects: Callable[[], Mapping[str, Sequence[int]]] = dict
        runs.fit_live = self._fit_known

    def update(self) -> LiveState:
        """Compute missing features, fit the live classifier to all labels, and predict every object.

        The predictions are the run ``live``. The same labels, features and number of threads give the same predictions
        as in a panel.

        Raises
        ------
        ProjectError
            If fewer than two classes are labeled, or another job is running.
        """
        self._jobs.run("live update", self._work)
        if self.state.message:
            raise ProjectError(self.state.message)
        return self.state

    def start(self) -> None:
        """Follow the labels from now on, in the background."""
        if not self._is_following:
            self._is_following = True
            self._compute_features()
            self.request()

    def stop(self) -> None:
        """Follow the labels no longer; the last predictions stay."""
        self._is_following = False
        self._jobs.lane.cancel("features")
        with self._condition:
            self._wanted += 1
            self._done = self._wanted

    def request(self) -> None:
        """Ask for new predictions, which replace any that are being computed."""
        if not self._is_following:
            return
        with self._condition:
            self._wanted += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._follow, name="svetlana live", daemon=True)
                self._thread.start()
            self._condition.notify_all()

    def images_changed(self) -> None:
        """Compute the features of new images, and predict their objects."""
        if self._is_following:
            self._compute_features()
            self.request()

    def handle(self, event: object) -> None:
        """Show a result or a state; called on the thread that created the project."""
        if isinstance(event, LiveResult):
            if event.data.generation == self._wanted:
                self._apply(event)
        elif isinstance(event, LiveState):
            if self.result is not None and event.message:  # no prediction stays on the screen without its labels
                self.result = None
                self._runs.set_live(None)
            self._set(event)
        else:
            self._report(str(event))

    def _set(self, state: LiveState) -> None:
        self.state = state
        self._show(state)

    def _apply(self, result: LiveResult) -> None:
        """Show a result, with the change since the labels before."""
        before, state = self._last.get(result.stage), self.state
        same_labels = self.result is not None and self.result.data.labels.equals(result.data.labels)
        changed = state.changed if same_labels and state.stage else count_changes(result, before)
        self._last[result.stage] = self.result = result
        scores = {"score": state.score, "score_text": state.score_text}
        if result.held_out is not None:
            scores["score"], scores["score_text"], self._scored = score_drawn_labels(
                result.held_out, self._classes.scheme
            )
        self._runs.set_live(self._make_run(result, str(scores["score_text"])))
        objects = sum(result.counts.values())
        self._set(
            replace(
                self._feature_state(result.data),
                labels=len(result.data.labels),
                objects=objects,
                counts=result.counts,
                changed=changed,
                stage=result.stage,
                **scores,
            )
        )
        if not self._runs.current_name:
            self._runs.choose(LIVE)

    def _make_run(self, result: LiveResult, note: str) -> LiveRun:
        scheme, labels = self._classes.scheme, result.data.labels
        ids = next((image.classes for image in result.images.values()), ())
        names = {info.id: info.name for info in scheme if info.id in ids}
        counts = labels.value_counts()
        trained = labels.rename("class_id").reset_index()
        trained["mask"] = trained["image"].map({name: image.mask for name, image in result.images.items()})
        settings = self._settings().model_dump(mode="json") | {"preset": LIVE, "architecture": LIVE, "start_from": None}
        return LiveRun(
            name=LIVE,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            settings=settings,
            classes=names,
            labels={name: int(counts.get(class_id, 0)) for class_id, name in names.items()},
            annotations="",
            history=[],
            seconds=0.0,
            stopped=False,
            note=f"{note[:1].upper()}{note[1:]}." if note else "",
            images=result.images,
            scored=self._scored if len(self._scored) else None,
            trained=trained,
        )

    def _fit_known(self) -> Run:
        """Return the live run, fitted to the features that are known, if there is none yet."""
        if self.result is None and not self._is_following and self._images.is_owned:
            for event in self._results(self._labeled_features(), lambda: False):
                self.handle(event)
        result = self.result
        if result is not None:
            return self._make_run(result, self.state.score_text)
        empty = LabeledFeatures(0, FeatureMatrix({}, {}), NO_LABELS, np.zeros(0, bool), np.zeros(0, str), {})
        return self._make_run(LiveResult(empty, "", {}, {}), "")

    def _work(self, stop: Stop) -> Iterator[object]:
        yield from self._features.compute(stop)
        if not stop():
            yield from self._results(self._labeled_features(), stop)

    def _results(self, data: LabeledFeatures, stop: Stop) -> Iterator[LiveResult | LiveState]:
        """Yield the results for some labels, or the reason why there is none."""
        number = 0
        for number, result in enumerate(live_results(data, stop), start=1):
            yield result
        if not number and not stop():
            yield replace(self._feature_state(data), labels=len(data.labels), message=self._reason(data))

    def _reason(self, data: LabeledFeatures) -> str:
        if not len(self._images):
            return "Add an image to see predictions."
        if data.labels.nunique() < 2:
            return TOO_FEW_CLASSES
        problem = next(iter(self._features.problems.values()), "")
        return problem or "The features of the labeled objects are being computed."

    def _feature_state(self, data: LabeledFeatures) -> LiveState:
        """Return a state with the number of objects that have features."""
        images = data.matrix.images.values()
        total, done = sum(len(image.labels) for image in images), sum(int(image.is_present.sum()) for image in images)
        waiting = any(image.is_waiting.any() for image in images) or not data.matrix.images
        return LiveState(
            missing=total - done, provisional=bool(waiting and self._is_following), features_done=done, features_total=total
        )

    def _follow(self) -> None:
        """Compute results until there is nothing to do; runs on its own thread."""
        while True:
            with self._condition:
                if not self._condition.wait_for(lambda: self._wanted != self._done, IDLE_SECONDS):
                    self._thread = None
                    return
                generation = self._wanted
            try:
                for event in self._results(self._labeled_features(), lambda: self._wanted != generation):
                    self._post(event)
            except (SvetlanaError, OSError) as error:
                self._post(str(error))
            with self._condition:
                self._done = generation

    def _post(self, event: object) -> None:
        self._jobs.post(self.handle, event)

    def _compute_features(self) -> None:
        """Compute missing features in the background lane, and predict with them from time to time."""

        def work(stop: Stop) -> Iterator[None]:
            last = time.monotonic()
            for _ in self._features.compute(stop, self.urgent_objects):
                if time.monotonic() - last > REFRESH_SECONDS and self._done == self._wanted:
                    last = time.monotonic()
                    self.request()
                yield
            self.request()

        self._jobs.lane.submit("features", work, lambda error: self._post(str(error)))

    def _labeled_features(self) -> LabeledFeatures:
        """Return the labels and features of this moment; may be called on any thread."""
        with self._lock:
            generation = self._wanted
            labels = self._test_set.training_labels()["class_id"]
            labels = labels[labels.index.get_level_values("image").isin(list(self._images))].sort_index()
            drawn, entries = self._annotations.drawn_objects(), self._images.snapshot()
            hidden = {name: self._test_set.hidden(name) for name in entries} if len(self._test_set) else {}
        images = labels.index.unique("image")
        groups = pd.Series("", labels.index, "object")
        with checked_live():
            for name in images:
                objects, entry = self._images.objects(name, wait=True), entries[name]
                numbers = labels.xs(name, level="image").index
                named = name_groups(name, entry.groups, objects.reindex(numbers), entry.shape, len(images) == 1)
                groups.loc[name] = named.to_numpy()
            matrix = self._features.matrix()
        is_drawn = np.array([object_id in drawn for object_id in labels.index], bool)
        return LabeledFeatures(generation, matrix, labels, is_drawn, groups.to_numpy(str), hidden)
