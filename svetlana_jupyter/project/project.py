"""The project: its data, and the classifiers trained on it with what they found.

Everything a panel does is one call here. State changes only on the thread and loop that made the project; jobs post
to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from traitlets import Any as AnyTrait
from traitlets import Int, Unicode

from svetlana_jupyter.core.annotations import ObjectId
from svetlana_jupyter.core.queue import least_certain
from svetlana_jupyter.core.results import class_map, merge_predictions, object_table, probability_map
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.core.statistics import count_classes
from svetlana_jupyter.errors import InputError, ProjectError, SettingsError
from svetlana_jupyter.project.catalog import Source
from svetlana_jupyter.project.dataset import Dataset
from svetlana_jupyter.project.evaluation import Evaluation, evaluate
from svetlana_jupyter.project.export import export
from svetlana_jupyter.project.jobs import Foreground, Stop, Work
from svetlana_jupyter.project.prediction import ImagePredicted, predict_images
from svetlana_jupyter.project.queues import Queue
from svetlana_jupyter.project.report import project_html
from svetlana_jupyter.project.runs import Run, read_runs
from svetlana_jupyter.project.training import LiveCurve, TrainingTask, readiness, train_run


class Project(Dataset):
    """Objects of images, what people say of them, and what classifiers make of that.

    Parameters
    ----------
    path : str or Path
        The project folder; made if it is new, else reopened where it was left.
    classes : iterable of str, optional
        Class names; new ones are added to those the project has, none is ever dropped.
    annotator : str, optional
        Whose annotations these are; the computer's user name by default.

    Attributes
    ----------
    classes_version, images_version, annotations_version, predictions_version : int
        Count up with every change, for panels to observe.
    current_run : str
        The name of the run that table, maps, counts and export show; "" before the first training.
    job : JobState or None
        The running training or prediction.
    live : LiveCurve or None
        The curve of the training that runs or ran last.
    status, trouble : str
        What was done last, and the last problem that no call could raise.

    Raises
    ------
    ProjectError
        If the folder cannot be made or is no project.
    """

    predictions_version = Int()
    current_run = Unicode()
    job = AnyTrait(allow_none=True)
    live = AnyTrait(allow_none=True)

    def __init__(self, path: str | Path, classes: Iterable[str] | None = None, annotator: str | None = None) -> None:
        super().__init__(path, classes, annotator)
        self._jobs = Foreground(self)
        self._predicted: dict[tuple[str, str], tuple[Mapping[int, int], int, pd.DataFrame]] = {}
        self._runs = read_runs(self._store.runs_folder)
        chosen = str(self._store.read_document().get("current_run", ""))
        self.current_run = chosen if chosen in self._runs else max(self._runs, default="")
        if self._store.writable and not self._store.settings_file.exists():
            self.settings = TrainingSettings()

    @property
    def settings(self) -> TrainingSettings:
        """What the next training uses: ``training.json`` of the project, which may be edited by hand."""
        file = self._store.settings_file
        if not file.exists():
            return TrainingSettings()
        try:
            return TrainingSettings.from_json(file.read_text("utf-8"))
        except SettingsError as error:
            raise SettingsError(f"{file}: {error}") from error

    @settings.setter
    def settings(self, settings: TrainingSettings) -> None:
        self._store.write_text(self._store.settings_file, settings.to_json() + "\n")

    def readiness(self) -> str:
        """Return what is still missing before a training can start, as a sentence; "" when nothing is."""
        return self._overwritten(self.images) or readiness(bool(self.images), self.class_counts())

    def train(self, settings: TrainingSettings | None = None, *, predict: bool = False, **changes: Any) -> Run:
        """Train a classifier on all annotations and wait for it.

        Parameters
        ----------
        settings : TrainingSettings, optional
            For this run alone; by default the project's.
        predict : bool
            Classify every object of every image behind it.
        **changes
            Single settings to replace, for example ``epochs=50`` or ``patches={"size": 64}``.

        Returns
        -------
        Run
            Finished, and from now on `current_run`.
        """
        self._jobs.run("training", self._training(settings, changes, predict))
        return self._runs[self.current_run]

    def start_training(
        self, settings: TrainingSettings | None = None, *, predict: bool = False, **changes: Any
    ) -> None:
        """Train on a thread of its own, so that the notebook stays free; `job`, `live` and `current_run` tell."""
        self._jobs.start("training", self._training(settings, changes, predict))

    def predict(self, images: Iterable[str] | None = None, run: str | None = None) -> None:
        """Classify every object of the images (all by default) and wait; Ctrl-C keeps the images that are done."""
        self._jobs.run("prediction", self._prediction(images, run))

    def start_prediction(self, images: Iterable[str] | None = None, run: str | None = None) -> None:
        """Classify on a thread of its own, so that the notebook stays free."""
        self._jobs.start("prediction", self._prediction(images, run))

    def stop(self) -> None:
        """Ask the running job to finish with what it has: a training with its best network so far."""
        self._jobs.stop()

    @property
    def runs(self) -> list[Run]:
        """All finished runs, the oldest first."""
        return list(self._runs.values())

    def run(self, name: str | None = None) -> Run:
        """Return a finished run by name, the current one by default."""
        name = name or self.current_run
        if not name:
            raise ProjectError("there is no trained classifier yet; annotate some objects of each class, then train.")
        if name not in self._runs:
            raise InputError(f"there is no run {name!r}; the runs are {', '.join(self._runs) or 'none yet'}.")
        return self._runs[name]

    def choose_run(self, name: str) -> None:
        """Make another finished run the current one, here and when the project is reopened."""
        self._make_current(self.run(name))

    def probabilities(self, image: str, run: str | None = None) -> pd.DataFrame:
        """Return what a run predicted for the objects of one image.

        Returns
        -------
        DataFrame
            Indexed by object: ``predicted`` (class id), ``probability``, one ``p_<class id>`` each; empty before the
            image was predicted.
        """
        self._catalog.entry(image)
        if not (run or self.current_run):
            return _NOTHING_PREDICTED
        chosen = self.run(run)
        seen, merged, mask = (chosen.name, image), self.classes.merged, self._catalog.entry(image).mask_number
        known = self._predicted.get(seen)
        if known is None or known[:2] != (merged, mask):
            file = chosen.predictions_file(image)
            table = pd.read_parquet(file) if file.exists() else _NOTHING_PREDICTED
            if table.attrs.get("mask", 0) != mask:  # its objects are those of another mask
                table = _NOTHING_PREDICTED
            self._predicted[seen] = known = merged, mask, merge_predictions(table, merged)
        return known[2]

    def predictions(self, images: Iterable[str] | None = None) -> pd.DataFrame:
        """Return one row for each object, as `core.results.object_table` describes it."""
        tables = [self._object_table(name) for name in self._chosen(images)]
        if not tables:
            raise ProjectError("the project has no images yet; add some with project.add_images(...).")
        return pd.concat(tables)

    def class_map(self, image: str) -> xr.DataArray:
        """Return the class under each pixel of an image, lazily (`core.results.class_map`)."""
        return class_map(self.pair(image).mask, self._object_table(image).droplevel("image"), self.classes)

    def probability_map(self, image: str) -> xr.DataArray:
        """Return the probability of the predicted class under each pixel, lazily; NaN where there is none."""
        return probability_map(self.pair(image).mask, self._object_table(image).droplevel("image"))

    def counts(self, by: Sequence[str] | str = ()) -> pd.DataFrame:
        """Count the objects of each class, by image or by grouping columns (`core.statistics.count_classes`).

        Parameters
        ----------
        by : str or sequence of str
            "image" or grouping columns, for example ``["plate", "well"]``; all objects together by default.
        """
        by = [by] if isinstance(by, str) else list(by)
        table = self.predictions().reset_index()
        unknown = [column for column in by if column not in table]
        if unknown:
            groups = sorted({"image", *(group for entry in self.images.values() for group in entry.groups)})
            raise InputError(f"there is no column {unknown[0]!r} to count by; choose among {', '.join(groups)}.")
        return count_classes(table, self.classes.names, by)

    def evaluate(self, run: str | None = None) -> Evaluation:
        """Return how good a run is, as far as it is known, with the source of the figure."""
        return evaluate(self.run(run))

    def explain(self, image: str, object: int, class_name: str | None = None) -> xr.Dataset:
        """Return the patch of an object as the classifier sees it, and where it looked (Grad-CAM).

        Parameters
        ----------
        class_name : str, optional
            The class whose evidence is asked for; the predicted one by default.
        """
        from svetlana_jupyter.learn.classifier import load_classifier
        from svetlana_jupyter.learn.explain import explain

        class_id = self.classes.by_name(class_name).id if class_name else None
        return explain(self.pair(image), self.objects(image), object, load_classifier(self.run().path), class_id)

    def queue(
        self,
        kind: str = "random",
        seed: int = 0,
        images: Iterable[str] | None = None,
        near: tuple[str, int] | None = None,
    ) -> Queue:
        """Return a queue of objects to look at that nobody has said anything of, each with the reason for it.

        Parameters
        ----------
        kind : {"random", "uncertain", "near", "image"}
            Uniformly at random; the least certain first; those nearest to the object ``near``, in its image; or one
            image after the other.
        seed : int
            Of the random order.
        images : iterable of str, optional
            All by default.
        near : (image, object), optional
            For "near".
        """
        return Queue(self, kind, seed, self._chosen(images), near)

    def uncertain(self, n: int = 100) -> list[ObjectId]:
        """Return up to ``n`` objects without annotation, those predicted with the least probability first."""
        table = self.predictions()
        found = least_certain(table[table["annotation"].isna()])
        return [candidate.id for candidate, _ in zip(found, range(n))]

    def export(self, folder: str | Path, formats: Sequence[str] = ("csv",)) -> list[Path]:
        """Write the results to a folder of their own and return the files (`project.export`)."""
        return export(self, Path(folder), formats)

    def _repr_html_(self) -> str:
        return project_html(self)

    def _object_table(self, name: str) -> pd.DataFrame:
        predictions = self.probabilities(name)
        return object_table(
            name,
            self.objects(name),
            self._catalog.entry(name).groups,
            self._labelling.labels,
            None if predictions.empty else predictions,
            self.classes,
            self.current_run,
        )

    def _chosen(self, images: Iterable[str] | None) -> list[str]:
        if images is None:
            return list(self.images)
        names = [images] if isinstance(images, str) else list(images)
        return [self._catalog.entry(name).name for name in names]

    def _training(self, settings: TrainingSettings | None, changes: Mapping[str, Any], predict: bool) -> Work:
        missing = self.readiness()
        if missing:
            raise ProjectError(missing)
        self._store.check_writable()
        chosen = (settings or self.settings).changed(**changes)
        labels = self.labels().query("action == 'label'")
        task = TrainingTask(
            pairs={name: self.pair(name) for name in self.images},
            objects=self.objects,
            labels=labels["class_id"],
            classes=self.classes,
            settings=chosen,
            folder=self._store.runs_folder,
        )
        self.live = LiveCurve()
        masks = {name: entry.mask_number for name, entry in self.images.items()}

        def work(stop: Stop) -> Iterator[object]:
            for event in train_run(task, stop):
                yield event
                if predict and isinstance(event, Run):
                    yield from predict_images(task.pairs, task.objects, event, stop, masks)

        return work

    def _prediction(self, images: Iterable[str] | None, run: str | None) -> Work:
        chosen = self.run(run)
        names = self._chosen(images)
        self._store.check_writable()
        pairs = {name: self.pair(name) for name in names}
        masks = {name: entry.mask_number for name, entry in self.images.items()}
        return lambda stop: predict_images(pairs, self.objects, chosen, stop, masks)

    def _check_idle(self) -> None:
        if self.job is not None:
            raise ProjectError(f"a {self.job.kind} reads these objects; wait for it or stop it with project.stop().")

    def replace_mask(self, name: str, mask: Source) -> pd.DataFrame:
        report = super().replace_mask(name, mask)
        self.predictions_version += 1
        return report

    def handle(self, event: object) -> None:
        """Take in one event of a job; only ever called by the owner."""
        if isinstance(event, LiveCurve):
            self.live = event
        elif isinstance(event, Run):
            self._runs[event.name] = event
            self._make_current(event)
            self.status = f"Run {event.name} is trained on {sum(event.labels.values())} annotations"
        elif isinstance(event, ImagePredicted):
            self._predicted.pop((event.run, event.image), None)
            self.predictions_version += 1
            self.status = f"{event.count:,} objects of {event.image} are predicted"

    def _make_current(self, run: Run) -> None:
        if self._store.writable:
            with self._store.editing_document() as document:
                document["current_run"] = run.name
        self.current_run = run.name
        self.predictions_version += 1


_NOTHING_PREDICTED = pd.DataFrame(
    {"predicted": pd.Series(dtype="int64"), "probability": pd.Series(dtype="float32")},
    index=pd.Index([], dtype="int64", name="object"),
)
