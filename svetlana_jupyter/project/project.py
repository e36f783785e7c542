"""The project: its data, and the classifiers trained on it with what they found.

Everything a panel does is one call here. State changes only on the thread and loop that made the project; jobs post
to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr
from traitlets import Any as AnyTrait

from svetlana_jupyter.core.recipes import AUTO_PRESET
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import ProjectError, SettingsError
from svetlana_jupyter.project.analysis import Analysis
from svetlana_jupyter.project.examples import select_training_objects
from svetlana_jupyter.project.exporting import Exporting
from svetlana_jupyter.project.jobs import Stop, Work, thread_count
from svetlana_jupyter.project.measurement import MEASURED, feature_table, measure_images, needs_measuring
from svetlana_jupyter.project.patches import augmented_patches, check_pipeline
from svetlana_jupyter.project.prediction import predict_images
from svetlana_jupyter.project.report import project_report_html
from svetlana_jupyter.project.runs import Run
from svetlana_jupyter.project.start import resolve_training_setup
from svetlana_jupyter.project.sweep import PAPER_GRID, cells, sweep, sweep_table
from svetlana_jupyter.project.training import (
    LearningCurve,
    RunScored,
    TrainingAbandoned,
    TrainingTask,
    readiness,
    train_run,
)

if TYPE_CHECKING:
    from torch.nn import Module


class Project(Exporting, Analysis):
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
    classes_version, images_version, annotations_version, predictions_version, runs_version : int
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

    live = AnyTrait(allow_none=True)

    def __init__(self, path: str | Path, classes: Iterable[str] | None = None, annotator: str | None = None) -> None:
        super().__init__(path, classes, annotator)
        self._network: Module | None = None  # of the training that runs, where it was given as an object
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
        check_pipeline(self, settings)
        self._store.write_text(self._store.settings_file, settings.to_json() + "\n")

    def preview_augmentation(
        self, image: str, object: int, settings: TrainingSettings | None = None, n: int = 8
    ) -> xr.DataArray:
        """Return ``n`` patches of an object (n, channel, [z,] y, x), each varied as training varies it.

        Parameters
        ----------
        settings : TrainingSettings, optional
            The project's by default; its seed decides what is drawn.
        """
        return augmented_patches(self, image, object, settings, n)

    def readiness(self) -> str:
        """Return what is still missing before a training can start, as a sentence; "" when nothing is."""
        try:
            return self._missing(self.settings)
        except SettingsError:  # which is said where they are shown
            return self._missing(TrainingSettings())

    def train(
        self,
        settings: TrainingSettings | Mapping[str, Any] | None = None,
        *,
        predict: bool = False,
        search: bool = False,
        network: Module | None = None,
        **changes: Any,
    ) -> Run:
        """Train a classifier on all annotations and wait for it.

        With the recipe "auto", which is the default, several recipes are tried within what may count
        (`learn.search`), and the best is trained. It is used again by later trainings of the same settings and classes,
        until there are twice as many annotations.

        Parameters
        ----------
        settings : TrainingSettings, optional
            For this run alone; by default the project's. ``run.settings`` of an earlier run trains the same again.
        predict : bool
            Classify every object of every image behind it.
        search : bool
            Try the recipes anew.
        network : torch.nn.Module, optional
            One of your own instead of the architecture of the settings: logits (n, classes) of patches
            (n, channels, [z,] y, x), the mask channel included. A copy is trained.
        **changes
            Single settings to replace, for example ``epochs=50`` or ``patches={"size": 64}``. A network of your own
            that is named here, ``architecture="package.module:Name"``, is imported.

        Returns
        -------
        Run
            Finished, and from now on `current_run`.
        """
        threads = thread_count("script")
        self._jobs.run("training", self._training(settings, changes, predict, network, threads, search))
        return self._runs[self.current_run]

    def start_training(
        self,
        settings: TrainingSettings | Mapping[str, Any] | None = None,
        *,
        predict: bool = False,
        search: bool = False,
        network: Module | None = None,
        **changes: Any,
    ) -> None:
        """Train on a thread of its own, so that the notebook stays free; `job`, `live` and `current_run` tell."""
        threads = thread_count("panel")
        self._jobs.start("training", self._training(settings, changes, predict, network, threads, search))

    def measure(
        self, images: Iterable[str] | None = None, groups: Iterable[str] = MEASURED, ring: float | None = None
    ) -> pd.DataFrame:
        """Measure every object of the images (all by default), each only once, and wait; Ctrl-C keeps what is done.

        Parameters
        ----------
        images : iterable of str, optional
        groups : iterable of str
            Of "shape", "intensity", "texture", "ring" (brightness around the object), "ring_texture", "orientation"
            and "position": all but "ring_texture" by default. `sv.describe_measurements()` says what is in them, in
            which unit, and what it means.
        ring : float, optional
            Width of the ring around an object in pixels; by default that of the settings.

        Returns
        -------
        DataFrame
            `predictions`, and behind its columns one for each measurement: ``area_um2``, ``dna_mean``, ... Lengths,
            areas and volumes are in micrometres where the spacing of an image is known, else in pixels and without
            ``_um`` behind the name. NaN is what cannot be told of an object.
        """
        names = self._chosen(images)
        chosen = self.settings.measurements
        chosen = chosen.changed(groups=tuple(groups), ring=chosen.ring if ring is None else ring)
        pairs = {name: self.pair(name) for name in names}
        if any(needs_measuring(pair, self.objects(name), chosen) for name, pair in pairs.items()):
            self._jobs.run("measurement", lambda stop: measure_images(pairs, self.objects, chosen, stop))
        table = self.predictions(names)
        measured = pd.concat([feature_table(pair, self.objects(name), chosen) for name, pair in pairs.items()])
        return table.merge(measured, how="left", left_index=True, right_index=True, suffixes=("", "_measured"))

    def sweep(
        self, settings: TrainingSettings | None = None, *, sampling: int | None = None, **values: Any
    ) -> pd.DataFrame:
        """Cross-validate every combination of some settings: the paper's Table 2 for one's own data.

        Each cell is kept in the project as soon as it is known: Ctrl-C loses none that is done, and the same call goes
        on with the rest. The test set is left alone. The best row of many is a little too good: its excess over the
        others is partly luck.

        Parameters
        ----------
        settings : TrainingSettings, optional
            What the values change; by default the project's.
        sampling : int, optional
            Pixels a side that patches are resampled to, fewer to be done sooner.
        **values
            Settings; those given as lists are varied, the others hold for all. Without a list, as in the paper:
            ``depth=[2, 3], width=[2, 4, 8, 16, 32, 64]``.

        Returns
        -------
        DataFrame
            One row a combination, the most accurate first, as `project.sweep.sweep_table` describes it.

        Examples
        --------
        ``project.sweep(depth=[2, 3], width=[4, 16], epochs=20, sampling=24)``
        """
        if sampling is not None:
            values["patches"] = {"sampling": sampling}
        if not any(isinstance(value, list | range) for value in values.values()):
            values = {**PAPER_GRID, **values}
        task = self._task(settings, {}, thread_count("script"))
        wanted = cells(task, values)
        self._jobs.run("sweep", lambda stop: sweep(task, wanted, self._store.sweep_file, stop))
        return sweep_table(wanted, self._store.sweep_file)

    def stop(self) -> None:
        """Ask the running job to finish with what it has: a training with its best network so far."""
        self._jobs.stop()

    def _repr_html_(self) -> str:
        return project_report_html(self)

    def _training(
        self,
        settings: TrainingSettings | Mapping[str, Any] | None,
        changes: Mapping[str, Any],
        predict: bool,
        network: Module | None,
        threads: int,
        search: bool,
    ) -> Work:
        given = TrainingSettings(**settings) if isinstance(settings, Mapping) else settings
        task = replace(self._task(given, changes, threads, network), search=search)
        if search and task.settings.recipe != AUTO_PRESET:
            raise ProjectError(
                f'a search chooses the recipe, but the settings name "{task.settings.recipe}"; give recipe="auto".'
            )
        threads = task.settings.threads or threads
        self.live, self._network = LearningCurve(), network

        def work(stop: Stop) -> Iterator[object]:
            for event in train_run(task, stop):
                yield event
                if predict and isinstance(event, Run):
                    yield from predict_images(self._predicting(list(task.pairs), event, threads, network), stop)

        return work

    def _task(
        self,
        settings: TrainingSettings | None,
        changes: Mapping[str, Any],
        threads: int,
        network: Module | None = None,
    ) -> TrainingTask:
        wanted = (settings or self.settings).changed(**changes)
        missing = self._missing(wanted)
        if missing:
            raise ProjectError(missing)
        self._store.check_writable()
        begins = resolve_training_setup(self.settings, settings, changes, network, self._runs)
        labels, says = select_training_objects(self, wanted.exclude_border, wanted.size)
        return TrainingTask(
            pairs={name: self.pair(name) for name in self.images},
            objects=self.objects,
            labels=labels["class_id"],
            gestures=self._labelling.gestures(),
            classes=self.classes,
            settings=begins.settings.changed(threads=begins.settings.threads or threads),
            folder=self._store.runs_folder,
            begins=begins,
            runs=tuple(self.runs),
            says=says,
            workers=begins.settings.threads or thread_count("script"),
        )

    def _missing(self, settings: TrainingSettings) -> str:
        labels, says = select_training_objects(self, settings.exclude_border, settings.size)
        counts = labels["class_id"].value_counts().reindex(self.classes.ids, fill_value=0)
        named = counts.set_axis(self.classes.names)
        return self._overwritten(self.images) or readiness(bool(self.images), named, says)

    def _check_idle(self) -> None:
        if self.job is not None:
            raise ProjectError(f"{self.job.named} reads these objects; wait for it or stop it with project.stop().")

    def handle(self, event: object) -> None:
        """Take in one event of a job; only ever called by the owner."""
        if isinstance(event, LearningCurve):
            self.live = event
        elif isinstance(event, Run):
            self._runs[event.name] = event
            if self._network is not None:
                self._networks[event.name] = self._network
            self.runs_version += 1
            self._make_current(event)
            trained = f"Run {event.name} is trained on {sum(event.labels.values())} annotations"
            self.status = ". ".join([trained, " ".join(filter(None, [event.choice, *event.remarks]))]).removesuffix(
                ". "
            )
        elif isinstance(event, RunScored):
            self._runs[event.run.name] = event.run
            self.runs_version += 1
            if not event.run.calibration.is_identity:
                self._predicted.clear()
                self.predictions_version += 1
            self.status = self.evaluate(event.run.name).text
        elif isinstance(event, TrainingAbandoned):
            self.status = "Stopped before anything was trained."
        else:
            super().handle(event)
