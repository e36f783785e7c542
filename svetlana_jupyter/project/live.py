"""Live classifier of a project, whose predictions follow the labels.

Only labels and features are stored; the classifier is fitted again when the project is opened.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from svetlana_jupyter.core.features.fitted_sources import FittedSources
from svetlana_jupyter.core.groups import name_groups
from svetlana_jupyter.core.io.table_files import format_list
from svetlana_jupyter.core.settings import LIVE_CLASSIFIER
from svetlana_jupyter.errors import ProjectError, SvetlanaError
from svetlana_jupyter.project.feature_matrix import FeatureMatrix
from svetlana_jupyter.project.known_files import checked_live
from svetlana_jupyter.project.live_results import (
    ImagePredictions,
    LabeledFeatures,
    LiveResult,
    Stage,
    count_changes,
    count_shown,
    describe_sample,
    live_results,
    score_drawn_labels,
)
from svetlana_jupyter.project.live_storage import UPDATE_FIRST, LiveSnapshot, keep_live
from svetlana_jupyter.project.run_store import LIVE
from svetlana_jupyter.project.runs import Run
from svetlana_jupyter.project.training_task import label_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from svetlana_jupyter.core.stats.metrics import Estimate
    from svetlana_jupyter.project.annotation_store import Annotations
    from svetlana_jupyter.project.image_collection import ImageCollection
    from svetlana_jupyter.project.jobs import JobRunner, Stop, Work
    from svetlana_jupyter.project.object_features import ObjectFeatures
    from svetlana_jupyter.project.project_classes import ProjectClasses
    from svetlana_jupyter.project.run_store import RunStore
    from svetlana_jupyter.project.storage import ProjectFolder
    from svetlana_jupyter.project.test_set import TestSet

REFRESH_SECONDS = 2.0  # between two updates while features are being computed
IDLE_SECONDS = 30.0  # after which the thread of the updates ends
TOO_FEW_CLASSES = "Label objects of two classes to see predictions."
NO_LABELS: pd.Series[int] = pd.Series(
    dtype="int64", index=pd.MultiIndex.from_arrays([[], []], names=["image", "object"])
)


@dataclass(frozen=True)
class LiveState:
    """What the live classifier shows, for panels.

    Attributes
    ----------
    labels : int
        Number of labels that the classifier was fitted to; without a prediction, of all labels.
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

    def __str__(self) -> str:
        parts = [f"{self.labels:,} labels", self.message]
        if self.score is not None:
            parts.append(f"balanced accuracy {self.score}, {self.score_text}")
        elif not self.message:
            parts.append(self.score_text)
        if self.changed is not None:
            parts.append(f"the last label changed {self.changed:,} objects")
        if self.missing:
            verb = "so far" if self.provisional else "only"
            parts.append(f"features of {self.features_done:,} of {self.features_total:,} objects {verb}")
        return " · ".join(part.removesuffix(".") for part in parts if part)


@dataclass(frozen=True, repr=False)
class LiveRun(Run):
    """The live classifier as a run, whose predictions are not stored."""

    images: Mapping[str, ImagePredictions] = field(default_factory=dict, compare=False)
    scored: pd.DataFrame | None = field(default=None, compare=False)
    trained: pd.DataFrame | None = field(default=None, compare=False)

    @property
    def title(self) -> str:
        """Name with the number of labels and the time of the fit, since labels change."""
        return f"{self.name}, {sum(self.labels.values())} labels, {self.finished}"

    def held_out(self, architecture: str = "network") -> pd.DataFrame | None:
        """Return held-out predictions of the drawn labels, as `Run.held_out`."""
        return self.scored if architecture == "network" else None

    def training_labels(self) -> pd.DataFrame | None:
        """Return the labels of the fit, as `Run.training_labels`."""
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
            "The live classifier has no network to explain. Train one in the Train tab or with project.train(), and "
            "choose its run."
        )


class Live:
    """Live classifier that follows the labels in the background or on demand.

    Parameters
    ----------
    features : ObjectFeatures
    images : ImageCollection
    annotations : Annotations
    test_set : TestSet
    classes : ProjectClasses
    runs : RunStore
    folder : ProjectFolder
    jobs : JobRunner
    show : callable
        Called with the `LiveState` on the thread that created the project.
    report : callable
        Called with a problem on that thread.

    Attributes
    ----------
    state : LiveState
    result : LiveResult or None
        The predictions that are shown.
    on_trains : callable
        Called with the new value of `trains`.
    urgent_objects : callable
        Returns the objects whose features are computed after those of labeled ones, by image; set by a panel.
    """

    def __init__(
        self,
        features: ObjectFeatures,
        images: ImageCollection,
        annotations: Annotations,
        test_set: TestSet,
        classes: ProjectClasses,
        runs: RunStore,
        folder: ProjectFolder,
        jobs: JobRunner,
        show: Callable[[LiveState], None],
        report: Callable[[str], None],
    ) -> None:
        self._features, self._images, self._annotations, self._test_set = features, images, annotations, test_set
        self._classes, self._runs, self._folder, self._jobs = classes, runs, folder, jobs
        self._show, self._report = show, report
        self.state = LiveState()
        self.result: LiveResult | None = None
        self._trains = True
        self.on_trains: Callable[[bool], None] = lambda allowed: None
        self._is_following = self._is_fitting = False
        self._wanted, self._done = 0, 0
        self._last: dict[Stage, LiveResult] = {}
        self._labels_before: pd.Series[int] | None = None  # before the labels that are shown
        self._scored = pd.DataFrame()
        self._held_out: pd.DataFrame | None = None  # the last ones, while those of a new label are computed
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self.urgent_objects: Callable[[], Mapping[str, Sequence[int]]] = dict
        self._lane_name = f"features {id(self)}"  # each `Project` of a folder shows what is computed
        runs.fit_live, features.on_damaged = self._fit_known, self._post

    def update(self) -> LiveState:
        """Compute missing features, fit to all labels, and predict every object.

        The predictions are the run ``live``. A labeled object is predicted from all other labels (leave-one-out), so
        that a wrong label differs from its prediction. The only label of a class is the exception, since the others
        know nothing of its class. The same labels, features and number of threads give the same predictions as in a
        panel.

        Raises
        ------
        ProjectError
            If fewer than two classes are labeled, or another job is running.
        """
        self._jobs.run("live update", self._work)
        if self.state.message:
            raise ProjectError(self.state.message)
        return self.state

    def keep(self) -> Run:
        """Store the live predictions as a numbered run, which later labels do not change.

        The run has the classifier, the predictions and the score of this moment. It is exported, counted and chosen as
        any other run. Its predictions of labeled objects are leave-one-out, as those of `update`. If they are computed
        again with ``project.predict(run=..., resume=False)``, they are those of the classifier, as in any other run.

        Returns
        -------
        Run

        Raises
        ------
        ProjectError
            If there are no live predictions, an image has changed since, or the run cannot be written.
        """
        self._jobs.run("live update", self.keep_work())
        return self._runs[-1]

    def keep_work(self) -> Work:
        """Return the work of `keep`, for a job."""
        result = self.result
        if result is None or result.model is None:
            raise ProjectError("There are no live predictions to keep. Call project.live.update() first.")
        if {*next(iter(result.images.values())).classes} - {*self._classes.scheme.ids}:  # merged since
            raise ProjectError(f"The classes have {UPDATE_FIRST}")
        self._folder.check_writable()
        run = self._make_run(result, self.state.score_text)
        assert run.trained is not None
        snapshot = LiveSnapshot(result, run, run.scored, run.trained, self._folder.read_settings())
        folder = self._folder.runs_folder
        return lambda stop: keep_live(snapshot, folder, self._images, self._features, stop)

    @property
    def held_out(self) -> pd.DataFrame | None:
        """Held-out predictions of the labels, as `Run.held_out`.

        They may be those of fewer labels, until those of the last labels are computed. None without predictions.
        """
        return None if self.result is None else self._held_out

    @property
    def trains(self) -> bool:
        """Whether networks are trained in the background while labels are followed."""
        return self._trains

    @trains.setter
    def trains(self, allowed: bool) -> None:
        self._trains = allowed
        self.on_trains(allowed)

    @property
    def is_following(self) -> bool:
        """Whether the labels are followed in the background."""
        return self._is_following

    def start(self) -> None:
        """Follow the labels from now on, in the background."""
        if not self._is_following:
            self._is_following = True
            self._compute_features()
            self.request()

    def stop(self) -> None:
        """Follow the labels no longer; the last predictions stay."""
        self._is_following = False
        self._jobs.lane.cancel(self._lane_name)
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
                self.result = self._held_out = None
                self._scored = pd.DataFrame()
                self._last.clear()
                self._runs.set_live(None)
            self._set(event)
        else:
            self._report(str(event))

    def hide(self) -> None:
        """Leave out objects of a test set that was drawn after the last update."""
        result = self.result
        if result is None or not len(self._test_set):
            return
        hidden = {name: self._test_set.hidden(name) for name in result.images}
        if any(objects != result.data.hidden.get(name, frozenset()) for name, objects in hidden.items()):
            counts = count_shown(result.images, hidden)
            self.result = replace(result, data=replace(result.data, hidden=hidden), counts=counts)
            self._last[result.stage] = self.result
            self._set(replace(self.state, objects=sum(counts.values()), counts=counts))

    def _set(self, state: LiveState) -> None:
        self.state = state
        self._show(state)

    def _apply(self, result: LiveResult) -> None:
        """Show a result, with the change since the labels before."""
        state, changed = self.state, self._count_changes(result)
        self._last[result.stage] = self.result = result
        estimate, text = state.score, state.score_text
        if result.held_out is not None:
            self._held_out = result.held_out
            estimate, text, self._scored = score_drawn_labels(result.held_out, self._classes.scheme)
        elif self._held_out is not None:  # the score follows, but the number of labels must not wait for it
            text = describe_sample(self._scored, result.data.labels[result.data.drawn], self._classes.scheme)
        self._runs.set_live(self._make_run(result, text))
        self._set(
            replace(
                self._feature_state(result.data, result),
                labels=len(result.labels),
                objects=sum(result.counts.values()),
                counts=result.counts,
                changed=changed,
                stage=result.stage,
                score=estimate,
                score_text=text,
            )
        )
        if not self._runs.current_name:
            self._runs.choose(LIVE)

    def _count_changes(self, result: LiveResult) -> int | None:
        """Count the predictions that the last edit of the labels changed.

        The average may be missing for the labels before, if it was superseded. The number of least squares stays then.
        """
        last, before, shown = self._last.get(result.stage), self._labels_before, self.result
        is_new = shown is None or not shown.data.labels.equals(result.data.labels)
        if is_new:
            self._labels_before = None if shown is None else shown.data.labels
        elif last is None or before is None or not last.data.labels.equals(before):
            return self.state.changed
        return count_changes(result, last)

    def _make_run(self, result: LiveResult, note: str) -> LiveRun:
        scheme, labels = self._classes.scheme, result.labels
        ids = next((image.classes for image in result.images.values()), ())
        names = {info.id: info.name for info in scheme if info.id in ids}
        counts = labels.value_counts()
        trained = labels.rename("class_id").reset_index()
        trained["mask"] = trained["image"].map({name: image.mask for name, image in result.images.items()})
        settings = self._folder.read_settings().model_dump(mode="json")
        settings |= {"preset": LIVE_CLASSIFIER, "architecture": LIVE_CLASSIFIER, "start_from": None}
        return LiveRun(
            name=LIVE,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            settings=settings,
            classes=names,
            labels={name: int(counts.get(class_id, 0)) for class_id, name in names.items()},
            annotations=label_digest(result.data.labels),
            history=[],
            seconds=0.0,
            stopped=False,
            note=f"{note[:1].upper()}{note[1:].removesuffix('.')}." if note else "",
            images=result.images,
            scored=self._scored if len(self._scored) else None,
            trained=trained,
        )

    def _fit_known(self) -> Run:
        """Return the live run; if there is none yet, fit it to known features."""
        if self.result is None and not (self._is_following or self._is_fitting) and self._images.is_owned:
            self._is_fitting = True  # reading the objects may make panels ask for the run again
            try:
                for event in self._results(self._labeled_features(), lambda: False):
                    self.handle(event)
            finally:
                self._is_fitting = False
        result = self.result
        if result is not None:
            return self._make_run(result, self.state.score_text)
        empty = LabeledFeatures(
            0, FeatureMatrix({}, FittedSources(())), NO_LABELS, np.zeros(0, bool), np.zeros(0, str), {}
        )
        return self._make_run(LiveResult(empty, "", {}, {}, NO_LABELS), "")

    def _work(self, stop: Stop) -> Iterator[object]:
        yield from self._features.compute(stop)
        if not stop():
            yield from self._results(self._labeled_features(), stop)

    def _results(self, data: LabeledFeatures, stop: Stop) -> Iterator[LiveResult | LiveState]:
        """Yield the results for some labels, or the reason why there is none."""
        has_result = False
        for result in live_results(data, stop):
            has_result = True
            yield result
        if not has_result and not stop():
            yield replace(self._feature_state(data), labels=len(data.labels), message=self._reason(data))

    def _reason(self, data: LabeledFeatures) -> str:
        if not len(self._images):
            return "Add an image to see predictions."
        if data.labels.nunique() < 2:
            return TOO_FEW_CLASSES
        if problem := next(iter(self._features.problems.values()), ""):
            return problem
        if impossible := data.matrix.impossible_sources():
            return (
                f"Too few labeled objects have features: {format_list(impossible)} cannot be computed from their "
                "pixels. Check that these pixels are numbers, or label other objects."
            )
        return "The features of the labeled objects are being computed."

    def _feature_state(self, data: LabeledFeatures, result: LiveResult | None = None) -> LiveState:
        """Return a state with the numbers of objects with features and predictions.

        More features may be known by now, for which an update is on its way.
        """
        images = data.matrix.images.values()
        total, done = sum(len(image.labels) for image in images), sum(int(image.is_present.sum()) for image in images)
        waiting = any(image.is_waiting.any() for image in images) or not data.matrix.images
        predicted = done
        if result is not None:
            predicted = sum(int(np.count_nonzero(image.predicted)) for image in result.images.values())
        return LiveState(
            missing=total - predicted,
            provisional=bool((waiting or predicted < done) and self._is_following),
            features_done=done,
            features_total=total,
        )

    def _follow(self) -> None:
        """Compute results until there is nothing to do; runs on its own thread."""
        while True:
            with self._condition:
                if not self._condition.wait_for(lambda: self._wanted != self._done, IDLE_SECONDS):
                    self._thread = None
                    return
            if self._jobs.lane.typing.wait(lambda: self._wanted == self._done):
                continue  # stopped
            generation = self._wanted  # one update for all labels that were typed meanwhile
            self._post_results(generation)
            with self._condition:
                self._done = max(self._done, generation)  # unless the following ended meanwhile

    def _post_results(self, generation: int) -> None:
        """Compute and show results until other ones are wanted."""

        def stop() -> bool:
            return self._jobs.lane.typing.wait(lambda: self._wanted != generation)

        try:
            for event in self._results(self._labeled_features(), stop):
                self._post(event)
        except Exception as error:  # the next label must find the thread alive
            self._post(f"The live predictions could not be updated: {error}")

    def _post(self, event: object) -> None:
        self._jobs.post(self.handle, event)

    def _compute_features(self) -> None:
        """Compute missing features in the background, with updates from time to time."""

        def work(stop: Stop) -> Iterator[None]:
            last = -math.inf  # the first part includes the labeled objects
            for _ in self._features.compute(stop, self._first_objects):
                if stop():  # by a job, whose update must not be outdated by a request
                    return
                if time.monotonic() - last > REFRESH_SECONDS and self._done == self._wanted:
                    last = time.monotonic()
                    self.request()
                yield
            if not stop():
                self.request()

        self._jobs.lane.submit(self._lane_name, work, lambda error: self._post(str(error)))

    def _first_objects(self) -> dict[str, list[int]]:
        """Return the objects to compute first: labeled ones, then those of a panel."""
        with self._folder.lock:
            labeled = self._test_set.training_labels().index.to_frame(index=False)
        first = {str(image): rows["object"].tolist() for image, rows in labeled.groupby("image")}
        for image, objects in self.urgent_objects().items():
            first.setdefault(image, []).extend(objects)
        return first

    def _labeled_features(self) -> LabeledFeatures:
        """Return the labels and features of this moment; may be called on any thread."""
        with self._folder.lock:
            generation = self._wanted
            labels = self._test_set.training_labels()["class_id"]
            labels = labels[labels.index.get_level_values("image").isin(list(self._images))].sort_index()
            drawn, entries = self._annotations.drawn_objects(), self._images.snapshot()
            hidden = {name: self._test_set.hidden(name) for name in entries} if len(self._test_set) else {}
        images = labels.index.unique("image")
        groups = np.full(len(labels), "", object)
        with checked_live():
            for name in images:
                try:
                    objects, entry = self._images.objects(name, wait=True), entries[name]
                except (SvetlanaError, OSError):  # such an image has no features; panels show why
                    continue
                numbers = labels.xs(name, level="image").index
                named = name_groups(name, entry.groups, objects.reindex(numbers), entry.shape, len(images) == 1)
                groups[labels.index.get_level_values("image") == name] = named.to_numpy()
            matrix = self._features.matrix()
        is_drawn = np.array([object_id in drawn for object_id in labels.index], bool)
        return LabeledFeatures(generation, matrix, labels, is_drawn, groups.astype(str), hidden)
