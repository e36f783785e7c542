"""Images, annotations and classifiers of one analysis in a project folder.

Every action of a panel is one method call of `Project`. State changes only on the thread and event loop that made the
project; jobs post their events to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import pandas as pd
from traitlets import Any as AnyTrait
from traitlets import HasTraits, Int, Unicode

from svetlana_jupyter.core.classes import ClassScheme
from svetlana_jupyter.core.predictions import class_map, object_table, probability_map
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.core.stats.outliers import HeldOutGroups, flag_unfamiliar_images
from svetlana_jupyter.errors import ProjectError, SettingsError
from svetlana_jupyter.project.accessors import BackgroundJobs, Plots
from svetlana_jupyter.project.annotation_store import Annotations, ObjectLabels, object_ids
from svetlana_jupyter.project.counts import CountComparison, compare_counts, count_objects
from svetlana_jupyter.project.distributed import resolve_client
from svetlana_jupyter.project.evaluation import EvaluationData, score_run, test_set_predictions
from svetlana_jupyter.project.exporters import Export, ExportFinished
from svetlana_jupyter.project.exporters.output_folder import OutputFolder
from svetlana_jupyter.project.exporters.snapshot import ResultsSnapshot, to_xarray
from svetlana_jupyter.project.features import DEFAULT_FEATURE_GROUPS, feature_table, measure_images, needs_measuring
from svetlana_jupyter.project.image_collection import ImageCollection, Source
from svetlana_jupyter.project.importers import read_imported_labels
from svetlana_jupyter.project.importers.imported_labels import ImportRequest, apply_import
from svetlana_jupyter.project.jobs import JobRunner, Progress, Stop, Work, thread_count
from svetlana_jupyter.project.mask_replacement import MaskReplacement
from svetlana_jupyter.project.patch_previews import augmented_patches, check_pipeline
from svetlana_jupyter.project.prediction_job import AllPredicted, ImagePredicted, PredictionTask, predict_images
from svetlana_jupyter.project.project_classes import ProjectClasses
from svetlana_jupyter.project.queues import Queue
from svetlana_jupyter.project.repr_html import project_report_html
from svetlana_jupyter.project.runs import NOTHING_PREDICTED, Run, RunStore
from svetlana_jupyter.project.storage import Aspect, Notify, ProjectFolder, pack, unpack
from svetlana_jupyter.project.sweep import PAPER_GRID, sweep, sweep_points, sweep_table
from svetlana_jupyter.project.test_set import TestSet
from svetlana_jupyter.project.training_job import LearningCurve, RunScored, TrainingAbandoned, train_run
from svetlana_jupyter.project.training_task import (
    TrainingTask,
    label_digest,
    readiness,
    resolve_setup,
    select_training_objects,
)

if TYPE_CHECKING:
    import xarray as xr
    from distributed import Client
    from torch.nn import Module

    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.core.io.images import Spacing
    from svetlana_jupyter.core.io.table_files import TableSource
    from svetlana_jupyter.core.stats.metrics import SizeLimits
    from svetlana_jupyter.project.evaluation import Evaluation

    ClientChoice: TypeAlias = Client | Literal["local"] | None


class Project(HasTraits):
    """Images, annotations and classifiers of one analysis, kept in a project folder.

    Parameters
    ----------
    path : str or Path
        The project folder; created if it is new, else opened as it was left.
    classes : iterable of str, optional
        Class names. New ones are added to those of the project; none is removed.
    annotator : str, optional
        Name under which annotations are saved; the user name of the computer by default.

    Attributes
    ----------
    images : ImageCollection
        The images by name.
    classes : ProjectClasses
        The classes, with methods to add, rename, recolor, merge and split them.
    annotations : Annotations
        The annotations of all annotators and the current label of every object.
    test_set : TestSet
        The held-out test set: `TestSet.draw` draws it.
    runs : RunStore
        The finished runs, the oldest first; ``runs.current`` is the one that is shown.
    plot : Plots
        Figures of counts, confusion and example objects.
    background : BackgroundJobs
        Training, prediction and export on a thread of their own.
    classes_version, images_version, annotations_version, predictions_version, runs_version : int
        Counters that increase with every change, for panels to observe.
    current_run : str
        Name of the run that tables, maps, counts and exports show; "" before the first training.
    job : JobState or None
        The running job.
    training_curve : LearningCurve or None
        Curve of the running or last training.
    last_export : ExportFinished or None
        The last export that ran in the background.
    status, trouble : str
        What was done last, and the last problem that no call could raise.

    Raises
    ------
    ProjectError
        If the folder cannot be created or is not a project.
    """

    classes_version = Int()
    images_version = Int()
    annotations_version = Int()
    predictions_version = Int()
    runs_version = Int()
    current_run = Unicode()
    job = AnyTrait(allow_none=True)
    training_curve = AnyTrait(allow_none=True)
    last_export = AnyTrait(allow_none=True)
    status = Unicode()
    trouble = Unicode()

    def __init__(self, path: str | Path, classes: Iterable[str] | None = None, annotator: str | None = None) -> None:
        names = ClassScheme().with_added(classes or ()).names  # refuses duplicates before a folder is created
        super().__init__()
        notify = Notify(self._bump, partial(self.set_trait, "status"), self._report)
        self.path = Path(path).absolute()
        self._folder = ProjectFolder(self.path)
        self.images = ImageCollection(self._folder, notify)
        self.classes = ProjectClasses(self._folder, notify)
        self.annotations = Annotations(self._folder, annotator, self.images, self.classes, notify)
        self.classes.on_edit = self.annotations.refresh
        self.trouble = self.annotations.file.trouble
        self.test_set = TestSet(self._folder, self.images, self.annotations, notify)
        show, score = partial(self.set_trait, "current_run"), lambda run: score_run(run, self._evaluation_data())
        self.runs = RunStore(self._folder, notify, show, score)
        self.current_run = self.runs.current_name
        self._masks = MaskReplacement(self._folder, self.images, self.annotations, self.classes)
        self._jobs = JobRunner(self._handle, partial(self.set_trait, "job"), self._report)
        self.plot = Plots(self.images, self.classes, self.counts, self.predictions, self.evaluate)
        self.background = BackgroundJobs(self._jobs, self._training, self._prediction, self._export_work)
        self.classes.extend(names)
        if self._folder.writable and not self._folder.settings_file.exists():
            self.settings = TrainingSettings()

    @classmethod
    def from_zip(cls, file: str | Path, folder: str | Path | None = None, annotator: str | None = None) -> Self:
        """Open a project that `save_zip` wrote.

        Parameters
        ----------
        file : str or Path
        folder : str or Path, optional
            New or empty folder to extract it to; by default next to the file, under the project's own name.
        annotator : str, optional

        Raises
        ------
        ProjectError
            If the file is not such a zip, contains paths outside its folder, or the folder is not empty.
        """
        project = cls(unpack(Path(file), folder), annotator=annotator)
        if missing := project.images.missing():
            project.trouble = f"{len(missing)} image files are missing, for example {missing[0]}. Copy them there."
        return project

    def save_zip(self, path: str | Path | None = None, *, arrays: bool = True) -> Path:
        """Write the project to one zip file, which `from_zip` opens again.

        It contains the whole project folder: classes, annotations, settings, runs and their predictions. Images and
        masks outside the folder are referenced, not copied: keep them, preferably next to the project.

        Parameters
        ----------
        path : str or Path, optional
            The file, or a folder for it; by default it is written next to the project.
        arrays : bool
            Whether to include images that were added as arrays and are stored in the project. Without them the project
            opens, but these images cannot be shown.

        Returns
        -------
        Path
            The file; it is written atomically.
        """
        with self._folder.lock:
            file = pack(self._folder, path, arrays)
        self.status = f"Saved to {file}"
        return file

    def add(
        self,
        name: str,
        image: Source,
        mask: Source,
        axes: str | None = None,
        spacing: tuple[float, ...] | None = None,
        channels: Sequence[str] | None = None,
        groups: Mapping[str, str] | None = None,
    ) -> None:
        """Add one image with its mask; adding the same files again changes nothing.

        Parameters
        ----------
        name : str
        image, mask : path or array
            Files are read lazily and never modified; arrays are copied into the project. Several paths for the image
            are its channels. Outlines exported by QuPath (GeoJSON) are rasterized to a mask in the project; where they
            overlap, the smaller one is on top, and `status` reports the overlap.
        axes : str, optional
            Axes of an image file that does not define them, for example ``"zyx"`` or ``"cyx"``.
        spacing : tuple of float, optional
            Micrometers per pixel, ``([z,] y, x)``.
        channels : sequence of str, optional
        groups : mapping of str to str, optional
            Values to group images by: plate, well, patient, ...
        """
        self.images.add(name, image, mask, axes=axes, spacing=spacing, channels=channels, groups=groups)

    def add_images(
        self, images: str | Path, masks: str | Path, axes: str | None = None, spacing: Spacing | None = None
    ) -> pd.DataFrame:
        """Add all images that match a pattern, with the masks of the same names.

        Only headers are read.

        Parameters
        ----------
        images, masks : str
            Patterns such as ``"wells/{plate}_{well}.tif"``. Placeholders pair images with masks, name the images and
            become grouping columns; ``{channel}`` combines files that contain one channel each.

        Returns
        -------
        DataFrame
            One row per pair (`core.io.file_pairs.find_pairs`), with ``problem`` (a sentence, or empty). Pairs with a
            problem were not added.

        Raises
        ------
        InputError
            If no pair can be added.
        """
        return self.images.add_matching(images, masks, axes, spacing)

    def pair(self, name: str) -> ImagePair:
        """Open an image with its mask, lazily."""
        return self.images.pair(name)

    def objects(
        self, name: str, progress: Callable[[int, int], None] | None = None, wait: bool = False
    ) -> pd.DataFrame:
        """Return the object table of an image (`core.objects.index_objects`).

        It is computed on first use and stored.

        Parameters
        ----------
        name : str
        progress : callable, optional
            Called with the number of finished steps and of all steps.
        wait : bool
            If another thread is computing the table, wait for it as long as it takes; otherwise raise an error after
            a few seconds.
        """
        return self.images.objects(name, progress, wait)

    def annotate(
        self, image: str, label: ObjectLabels, class_name: str, source: str = "script", seconds: float | None = None
    ) -> None:
        """Assign a class to one object, or to several in a single edit.

        The edit is on disk when this returns.

        Parameters
        ----------
        image : str
        label : int or iterable of int
            Labels of the objects in the mask.
        class_name : str
        source : str
            Origin of the label, for the log.
        seconds : float, optional
            Time that the object was displayed before it was labeled.
        """
        self.annotations.annotate_each(dict.fromkeys(object_ids(image, label), class_name), source, seconds)

    def flag(
        self, image: str, label: ObjectLabels, flag: str, source: str = "script", seconds: float | None = None
    ) -> None:
        """Flag objects as "ambiguous", "bad_segmentation" or "skip" (pass over them).

        Flagged objects are excluded from training and counts, and reported separately.
        """
        self.annotations.flag_each(object_ids(image, label), flag, source, seconds)

    def erase(self, image: str, label: ObjectLabels, source: str = "script") -> None:
        """Remove the annotations of objects."""
        self.annotations.erase_each(object_ids(image, label), source)

    def undo(self) -> bool:
        """Undo the last edit; return False if there is none."""
        return self.annotations.undo()

    def redo(self) -> bool:
        """Redo the last undone edit; return False if there is none."""
        return self.annotations.redo()

    def labels(self) -> pd.DataFrame:
        """Return the current label of every annotated object.

        Returns
        -------
        DataFrame
            Indexed by ``(image, object)``: ``action`` ("label", "ambiguous", "bad_segmentation" or "skip"),
            ``class_id`` (0 except for "label") and ``class`` (its name).
        """
        return self.annotations.label_table()

    def class_counts(self) -> pd.Series:
        """Return the number of annotated objects per class, by name."""
        return self.annotations.class_counts()

    def import_annotations(
        self,
        source: TableSource,
        image: str | None = None,
        *,
        column: str | None = None,
        names: Mapping[int, str] | Sequence[str] | None = None,
        overwrite: bool = False,
    ) -> pd.DataFrame:
        """Annotate objects from a file or table in a single edit.

        One undo reverts all of it.

        Parameters
        ----------
        source : path or DataFrame
            A table (CSV, Excel or DataFrame) with one row per object and columns for its image, its label in the mask
            or its position (x, y and z in pixels, or in µm if the header contains the unit), and its class; common
            column names are recognized, those of ilastik's object tables included. Outlines or points from QuPath
            (GeoJSON), for the objects that they overlap by more than half, or lie on. A class image (TIFF, HDF5, ...),
            in which each pixel has the class of its object. The folder of a napari-svetlana project, whose images are
            added if they are not in the project.
        image : str, optional
            The image of a source that does not name it; by default the one that the file is named after, or the only
            one.
        column : str, optional
            The column of a table that contains the classes. By default manual annotations take precedence over
            predictions: "annotation", ilastik's "User Label", "class", ..., "Predicted Class".
        names : mapping of int to str or sequence of str, optional
            Class names of the numbers in a class image (a sequence starts at 1) or in a napari-svetlana project (it
            starts at 0).
        overwrite : bool
            Whether imported labels replace different existing ones; otherwise these stay and are reported.

        Returns
        -------
        DataFrame
            One row per imported label: ``image``, ``object``, ``class``, ``outcome`` ("taken", "known", "differs",
            "contradicts", "earlier", "no class", "not found") and ``why``. ``attrs["summary"]`` and `status` summarize
            it in a sentence. New classes are added, with the colors of the file.

        Raises
        ------
        InputError
            If the source cannot be used; nothing is changed then.
        """
        self._folder.check_writable()
        request = ImportRequest(self.images, self.classes.scheme, image, column, names)
        labels = read_imported_labels(request, source)
        report = apply_import(self.images, self.classes, self.annotations, labels, overwrite)
        self.status = report.attrs["summary"]
        return report

    def check_mask(self, name: str, mask: Source) -> pd.DataFrame:
        """Return what `replace_mask` would do, without changing anything.

        Any thread may call this. A following `replace_mask` with the same mask reuses the result.

        Parameters
        ----------
        name : str
        mask : path or array

        Returns
        -------
        DataFrame
            As returned by `replace_mask`, without ``carried``.

        Raises
        ------
        InputError
            If the mask cannot be used.
        """
        return self._masks.preview(name, mask)

    def replace_mask(self, name: str, mask: Source) -> pd.DataFrame:
        """Replace the mask of an image, and carry its annotations over.

        Nothing is deleted: the annotation log with undo and redo, the old mask and the predictions for it are kept, but
        these predictions are no longer shown. A new object takes over an annotation that covers more than half of it,
        by the pixels shared with old objects; an object merged from objects with different annotations takes none. If
        the file of the old mask was overwritten, the bounding boxes stored with each annotation are compared instead.

        Parameters
        ----------
        name : str
        mask : path or array
            Of the same shape. A file is read in place, an array is copied into the project, outlines (GeoJSON) are
            rasterized there.

        Returns
        -------
        DataFrame
            One row per annotated object, indexed by its old label: ``class``; ``status`` ("kept", "relabeled", "split"
            into several, "merged" with others, "lost"); ``new`` (labels of the objects in its place); ``share``
            (fraction of the old object that they cover); ``carried`` (the new objects that have its annotation now).
            ``attrs["matched_by"]`` is "pixels" or "boxes".

        Raises
        ------
        InputError
            If the mask cannot be used; nothing is changed then.
        """
        with self._folder.lock:
            self._jobs.check_idle()
            report, self.status = self._masks.replace(name, mask)
        self._bump("predictions")
        return report

    @property
    def settings(self) -> TrainingSettings:
        """Settings of the next training.

        They are stored in ``training.json`` of the project, which may be edited by hand.
        """
        return self._folder.read_settings()

    @settings.setter
    def settings(self, settings: TrainingSettings) -> None:
        check_pipeline(self.images, self.annotations.class_ids(), settings)
        self._folder.write_text(self._folder.settings_file, settings.to_json() + "\n")

    def preview_augmentation(
        self, image: str, label: int, settings: TrainingSettings | None = None, n: int = 8
    ) -> xr.DataArray:
        """Return ``n`` augmented patches of an object, as training would see them.

        Their dimensions are (n, channel, [z,] y, x).

        Parameters
        ----------
        settings : TrainingSettings, optional
            Those of the project by default; their seed determines the random augmentation.
        """
        settings = settings or self.settings
        return augmented_patches(self.images, self.annotations.class_ids(), self.runs, image, label, settings, n)

    def readiness(self) -> str:
        """Return a sentence about what is missing before a training can start.

        It is "" if nothing is missing.
        """
        try:
            settings = self.settings
        except SettingsError:  # the settings panel reports it
            settings = TrainingSettings()
        return self._missing(*self._training_objects(settings.exclude_border, settings.size))

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

        With the default preset "auto", several presets are compared within the allowed cues (`learn.preset_search`) and
        the best one is trained. Later trainings with the same settings and classes reuse it until there are twice as
        many annotations.

        Parameters
        ----------
        settings : TrainingSettings, optional
            For this run only; those of the project by default. ``run.settings`` repeats an earlier training.
        predict : bool
            Classify every object of every image afterwards.
        search : bool
            Compare the presets again.
        network : torch.nn.Module, optional
            Network to train instead of the architecture of the settings, with logits (n, classes) for patches
            (n, channels, [z,] y, x), the mask channel included. A copy is trained.
        **changes
            Single settings to replace, for example ``epochs=50`` or ``patches={"size": 64}``. A network named here,
            ``architecture="package.module:Name"``, is imported.

        Returns
        -------
        Run
            The finished run, which is now the `current_run`.
        """
        threads = thread_count("script")
        self._jobs.run("training", self._training(settings, changes, predict, network, threads, search))
        return self.runs.current

    def predict(
        self,
        images: Iterable[str] | None = None,
        run: str | None = None,
        *,
        client: ClientChoice = None,
        resume: bool = True,
        average: bool = False,
        network: Module | None = None,
    ) -> None:
        """Classify every object of the images (all by default) and wait.

        Finished parts are stored: after a stop, Ctrl-C or a power failure the same call continues with the rest. An
        image is skipped if it is predicted already and neither the image, its mask nor its objects have changed.

        Parameters
        ----------
        images : iterable of str, optional
        run : str, optional
            The current one by default.
        client : dask.distributed.Client or "local", optional
            Client of the cluster that computes the predictions; by default the active client, else this machine. The
            workers must see the images under the same paths.
        resume : bool
            Whether to skip what is predicted already.
        average : bool
            Average over the mirrored and rotated views that the run was trained with; each costs one prediction.
        network : torch.nn.Module, optional
            The network of a run that was trained in an earlier session with a network passed as an object.

        Raises
        ------
        ClassifierError
            Before anything is predicted, if the run does not fit an image.
        InputError
            At the end, if some images could not be predicted; the others are.
        """
        if network is not None:
            self.runs.networks[self.runs.get(run).name] = network
        work = self._prediction(images, run, thread_count("script"), client, resume=resume, average=average)
        self._jobs.run("prediction", work)

    def measure(
        self,
        images: Iterable[str] | None = None,
        groups: Iterable[str] = DEFAULT_FEATURE_GROUPS,
        ring: float | None = None,
    ) -> pd.DataFrame:
        """Measure every object of the images (all by default) once, and wait.

        Ctrl-C keeps what is finished.

        Parameters
        ----------
        images : iterable of str, optional
        groups : iterable of str
            Any of "shape", "intensity", "texture", "ring" (intensity around the object), "ring_texture", "orientation"
            and "position"; all except "ring_texture" by default. `sv.describe_measurements()` lists the features of
            each group with their units.
        ring : float, optional
            Width of the annulus around an object in pixels; by default that of the settings.

        Returns
        -------
        DataFrame
            `predictions` with one additional column per feature: ``area_um2``, ``dna_mean``, ... Lengths, areas and
            volumes are in micrometers if the spacing of an image is known, else in pixels and without ``_um`` in the
            name. NaN if a feature is undefined for an object.
        """
        names = self.images.chosen(images)
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
        """Cross-validate every combination of some settings, as in the paper's Table 2.

        Each result is stored as soon as it is computed: after Ctrl-C the same call continues with the rest. The test
        set is not used. The best row of many is slightly too good, since it was selected for its score.

        Parameters
        ----------
        settings : TrainingSettings, optional
            Settings that the values replace; by default those of the project.
        sampling : int, optional
            Pixels per side that patches are resampled to; fewer are faster.
        **values
            Settings; those given as lists are varied, the others apply to all. Without any list, as in the paper:
            ``depth=[2, 3], width=[2, 4, 8, 16, 32, 64]``.

        Returns
        -------
        DataFrame
            One row per combination, the most accurate first (`project.sweep.sweep_table`).

        Examples
        --------
        ``project.sweep(depth=[2, 3], width=[4, 16], epochs=20, sampling=24)``
        """
        if sampling is not None:
            values["patches"] = {"sampling": sampling}
        if not any(isinstance(value, list | range) for value in values.values()):
            values = {**PAPER_GRID, **values}
        task = self._task(settings, {}, thread_count("script"))
        points = sweep_points(task, values)
        self._jobs.run("sweep", lambda stop: sweep(task, points, self._folder.sweep_file, stop))
        return sweep_table(points, self._folder.sweep_file)

    def stop(self) -> None:
        """Ask the running job to stop and keep what is finished.

        A training keeps its best network so far.
        """
        self._jobs.stop()

    def predictions(self, images: Iterable[str] | None = None) -> pd.DataFrame:
        """Return the label and prediction of every object.

        One row per object, as in `core.predictions.object_table`.
        """
        tables = [self._object_table(name) for name in self.images.chosen(images)]
        if not tables:
            raise ProjectError("The project has no images yet. Add some with project.add_images(...).")
        return pd.concat(tables)

    def probabilities(self, image: str, run: str | None = None) -> pd.DataFrame:
        """Return what a run predicted for the objects of one image.

        Returns
        -------
        DataFrame
            Indexed by object: ``predicted`` (class id), ``probability`` and ``p_<class id>`` per class, calibrated if
            the run has a calibration; empty before the image is predicted. Objects of the test set are left out until
            they are annotated.
        """
        self.images.entry(image)
        if not (run or self.current_run):
            return NOTHING_PREDICTED
        chosen = self.runs.get(run)
        return self.test_set.hide(self._all_probabilities(chosen, image), image, chosen.name)

    def failed(self, images: Iterable[str] | None = None, run: str | None = None) -> pd.DataFrame:
        """Return the objects that a run could not predict.

        Their pixels cannot be decoded.

        Returns
        -------
        DataFrame
            Indexed by ``(image, object)``: ``why``, a sentence. `predictions` lists them without a prediction;
            `predict` tries them again.
        """
        return self.runs.failed(self.runs.get(run), self.images.chosen(images))

    def class_map(self, image: str) -> xr.DataArray:
        """Return the class of each pixel lazily (`core.predictions.class_map`)."""
        return class_map(self.pair(image).mask, self._object_table(image).droplevel("image"), self.classes.scheme)

    def probability_map(self, image: str) -> xr.DataArray:
        """Return the probability of the predicted class of each pixel, lazily.

        NaN where nothing is predicted.
        """
        return probability_map(self.pair(image).mask, self._object_table(image).droplevel("image"))

    def counts(
        self,
        by: Sequence[str] | str = (),
        conditions: TableSource | None = None,
        *,
        exclude_border: bool = False,
        size: SizeLimits = (None, None),
        corrected: bool = False,
    ) -> pd.DataFrame:
        """Count the objects of each class, per image, grouping column or condition.

        Parameters
        ----------
        by : str or sequence of str
            "image", grouping columns or condition columns, for example ``["plate", "well"]`` or "dose"; all objects
            together by default.
        conditions : path or DataFrame, optional
            A CSV or table with one row per well (a plate and well, a patient, an image) and its treatment
            (`core.io.table_files.join_conditions`). Conditions that are constant within a group are added as columns.
            Rows and images without a match are named in `status`; their conditions are missing.
        exclude_border : bool
            Whether to leave out objects that touch the border of their image.
        size : tuple of float or None
            Minimum and maximum size of an object in pixels (voxels): ``(50, None)`` leaves out small ones.
        corrected : bool
            Whether to add counts corrected for misclassification, as measured on the test set
            (`core.stats.count_correction`). Annotated objects count as they are, the others by the number of objects of
            each class that would give these predictions. The recall of each class is assumed to be the same in every
            group.

        Returns
        -------
        DataFrame
            Tidy, one row per group and class: ``count``, ``total``, ``fraction`` with its 95 % interval over objects
            (``low``, ``high``), ``corrected`` with its own interval (``corrected_low``, ``corrected_high``) on request,
            and ``left_out`` by reason (`core.stats.metrics.count_classes`).

        Raises
        ------
        ProjectError
            If corrected counts are requested and there is no test set, or too few of its objects are annotated.
        """
        objects, groups, classes = self.predictions(), self.images.groups(), self.classes.scheme
        test = test_set_predictions(self.runs.current, self._evaluation_data()) if corrected else None
        table, remark = count_objects(objects, groups, classes, by, conditions, exclude_border, size, test)
        self.status = remark or self.status
        return table

    def compare_counts(
        self,
        manual: TableSource | Mapping[str, float],
        class_name: str | None = None,
        *,
        exclude_border: bool = False,
        size: SizeLimits = (None, None),
    ) -> CountComparison:
        """Compare the counts of a class with manual counts, per well or per image.

        Parameters
        ----------
        manual : path, DataFrame or mapping
            A CSV or table with a column named like a grouping column ("well") or "image", and either "class" and
            "count" or a column named like the class; other columns, for example a treatment, are kept. Or a mapping of
            image name to count.
        class_name : str, optional
            The class to compare, if the table contains several.
        exclude_border, size
            As for `counts`.

        Returns
        -------
        CountComparison
            ``slope``, ``intercept``, ``r2``, ``bias``, ``limits`` (95 % limits of agreement), ``n``, the ``table``, and
            ``figure()``: the paper's Fig. 4 h with a Bland–Altman plot.

        Raises
        ------
        InputError
            If no row of the table matches, or fewer than three do.
        """
        comparison = compare_counts(
            self.predictions(), self.images.groups(), self.classes.scheme, manual, class_name, exclude_border, size
        )
        self.status = str(comparison)
        return comparison

    def evaluate(self, run: str | None = None) -> Evaluation:
        """Return the accuracy report of a run.

        It is measured on the test set if that is annotated, else by cross-validation.
        """
        chosen = self.runs.get(run)
        exclude_border, size = chosen.settings.get("exclude_border", False), chosen.settings.get("size")
        labels, _ = self._training_objects(exclude_border, size)
        outdated = chosen.annotations != label_digest(labels["class_id"])
        images = self.compare_images(run=chosen.name)
        return replace(score_run(chosen, self._evaluation_data()), outdated=outdated, images=images)

    def compare_images(self, images: Iterable[str] | None = None, run: str | None = None) -> pd.DataFrame:
        """Test each predicted image for out-of-distribution objects.

        Objects that are unlike all annotated ones are counted per image (`core.stats.outliers`).

        Parameters
        ----------
        images : iterable of str, optional
            All by default.
        run : str, optional
            The current one by default.

        Returns
        -------
        DataFrame
            Indexed by image: ``asked`` (objects compared, drawn at random), ``unlike`` (fraction of them that is
            outlying; 5 % are expected), ``annotated``, ``p`` and ``warn`` (whether the image as a whole is
            out-of-distribution: annotate some of its objects before relying on its predictions). Without rows if too
            few objects are annotated to tell.
        """
        chosen, names = self.runs.get(run), self.images.chosen(images)
        counts = self.test_set.training_labels().groupby(level="image").size()
        annotated = {str(image): int(count) for image, count in counts.items()}
        # The annotated images define the reference, whichever images are requested.
        masks = self.images.mask_numbers() if chosen.left_out else {}
        compared = {name: masks[name] for name in [*names, *annotated] if name in masks}
        left_out = chosen.left_out or HeldOutGroups((), ())
        table = flag_unfamiliar_images(chosen.outlier_fractions(compared), annotated, left_out)
        return table[table.index.isin(names)]

    def explain(self, image: str, label: int, class_name: str | None = None) -> xr.Dataset:
        """Return the patch of an object as the classifier sees it.

        It comes with its saliency map (Grad-CAM).

        Parameters
        ----------
        image : str
        label : int
        class_name : str, optional
            The class to explain; the predicted one by default.
        """
        from svetlana_jupyter.learn.classifier import load_classifier
        from svetlana_jupyter.learn.gradcam import explain

        run = self.runs.current
        class_id = self.classes.by_name(class_name).id if class_name else None
        if label in self.test_set.hidden(image):
            raise ProjectError(
                f"Object {label} of {image!r} belongs to the test set, so its prediction is hidden. Annotate it first."
            )
        classifier = load_classifier(run.path, self.runs.networks.get(run.name))
        return explain(self.pair(image), self.objects(image), label, classifier, class_id)

    def queue(
        self,
        kind: str = "random",
        seed: int = 0,
        images: Iterable[str] | None = None,
        near: tuple[str, int] | None = None,
    ) -> Queue:
        """Return a queue of unlabeled objects to review, each with the reason.

        Parameters
        ----------
        kind : {"random", "uncertain", "near", "image", "test"}
            Uniformly at random; the least certain first; the nearest to the object ``near`` first, in its image; image
            by image; or those of the test set, which no other queue contains.
        seed : int
            Seed of the random order.
        images : iterable of str, optional
            All by default.
        near : (image, label), optional
            For "near".
        """
        names = self.images.chosen(images)
        return Queue(self.images, self.annotations, self.test_set, self.predictions, kind, seed, names, near)

    def export(self, folder: str | Path, formats: Sequence[str] = ("csv",)) -> list[Path]:
        """Write the current results to a folder of their own, and return the files.

        Parameters
        ----------
        folder : str or Path
            Created if it is new. It must not contain images or masks, nor be part of the project. Files of an earlier
            export are replaced, others are kept.
        formats : sequence of str
            "csv", "parquet", "excel" (tables), "anndata" (for scanpy), "tiff" (class maps for ImageJ), "ome-tiff",
            "masks" (one per class), "ome-zarr", "geojson" (outlines for QuPath), "patches" (of annotated objects).

        Raises
        ------
        InputError
            If a format is unknown.
        ProjectError
            If the folder cannot be used, a format cannot hold the results (before anything is written), or a file
            cannot be written; every file is written atomically.
        """
        return list(self._export(folder, formats).files())

    def to_xarray(self, images: Iterable[str] | None = None) -> xr.Dataset:
        """Return the object table as a Dataset (`core.predictions.object_dataset`).

        Its dimensions are ``object`` and ``class``.

        It includes the measurements that were computed. ``to_netcdf("objects.nc")`` and ``to_zarr`` write it.
        """
        return to_xarray(self._snapshot(self.images.chosen(images)))

    def _repr_html_(self) -> str:
        return project_report_html(self.path.name, self.images, self.annotations, self.classes, self.runs)

    def _bump(self, aspect: Aspect) -> None:
        name = f"{aspect}_version"
        self.set_trait(name, getattr(self, name) + 1)

    def _report(self, text: str, was: str | None = None) -> None:
        if was is None or self.trouble == was:
            self.trouble = text

    def _handle(self, event: Any) -> None:
        """Apply an event of a job; only called on the thread that made the project."""
        match event:
            case LearningCurve():
                self.training_curve = event
            case Run() as run, network:
                self.runs.add(run, network)
                self.runs.choose(run.name)
                self.status = run.summary
            case RunScored(run):
                self.runs.update(run)
                self.status = self.evaluate(run.name).text
            case TrainingAbandoned():
                self.status = "Stopped before anything was trained."
            case ImagePredicted():
                self.runs.forget_predictions(event.run, event.image)
                self._report_predicted(AllPredicted((event,)))
            case AllPredicted():
                self._report_predicted(event)
            case ExportFinished():
                self.last_export, self.status = event, event.text

    def _report_predicted(self, predicted: AllPredicted) -> None:
        events = predicted.images
        compared = self.compare_images([event.image for event in events], events[0].run)
        self.status, trouble = predicted.messages(compared)
        self.trouble = trouble or self.trouble

    def _all_probabilities(self, run: Run, image: str) -> pd.DataFrame:
        """Return the predictions of a run for an image, hidden ones included."""
        return self.runs.probabilities(run, image, self.images.entry(image).mask_number, self.classes.merged)

    def _object_table(self, name: str) -> pd.DataFrame:
        groups, labels, classes = self.images.entry(name).groups, self.annotations.labels, self.classes.scheme
        predictions = self.probabilities(name)
        known = None if predictions.empty else predictions
        return object_table(name, self.objects(name), groups, labels, known, classes, self.current_run)

    def _evaluation_data(self) -> EvaluationData:
        classes, flags, test_set = self.classes.scheme, self.annotations.flag_counts(), self.test_set.table()
        images = self.images
        return EvaluationData(classes, images.snapshot(), flags, test_set, images.objects, self._all_probabilities)

    def _snapshot(self, names: Sequence[str]) -> ResultsSnapshot:
        """Return the present results; any thread may call this while annotating goes on."""
        for name in names:
            self.images.objects(name, wait=True)
        with self._folder.lock:
            labels = self.labels().query("action == 'label'")
            labels = labels[labels.index.get_level_values("image").isin(names)]
            test_set = [object_id in self.test_set for object_id in labels.index]
            return ResultsSnapshot(
                self.path.name,
                self.images.pair,
                self.images.objects,
                self.settings,
                self.predictions(names),
                labels[["class", "class_id"]].assign(test_set=test_set),
                self.classes.scheme,
                self.current_run,
                {name: self.images[name].groups for name in names},
            )

    def _training_objects(self, exclude_border: bool, size: SizeLimits | None) -> tuple[pd.DataFrame, str]:
        """Return the labels that a training learns from, and a sentence about the others."""
        return select_training_objects(self.test_set.training_labels(), self.images.objects, exclude_border, size)

    def _missing(self, labels: pd.DataFrame, explanation: str) -> str:
        counts = labels["class_id"].value_counts().reindex(self.classes.ids, fill_value=0)
        named = counts.set_axis(self.classes.names)
        return self.annotations.overwritten_message(self.images) or readiness(bool(self.images), named, explanation)

    def _task(
        self,
        settings: TrainingSettings | None,
        changes: Mapping[str, Any],
        threads: int,
        network: Module | None = None,
        search: bool = False,
    ) -> TrainingTask:
        wanted = (settings or self.settings).changed(**changes)
        labels, explanation = self._training_objects(wanted.exclude_border, wanted.size)
        if missing := self._missing(labels, explanation):
            raise ProjectError(missing)
        self._folder.check_writable()
        runs = {run.name: run for run in self.runs}
        setup = resolve_setup(self.settings, settings, changes, network, runs)
        return TrainingTask(
            pairs={name: self.pair(name) for name in self.images},
            objects=self.images.objects,
            labels=labels["class_id"],
            explanation=explanation,
            edit_groups=self.annotations.edit_groups(),
            classes=self.classes.scheme,
            setup=setup,
            settings=setup.settings.changed(threads=setup.settings.threads or threads),
            runs=tuple(runs.values()),
            folder=self._folder.runs_folder,
            search=search,
        )

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
        task = self._task(given, changes, threads, network, search)
        self.training_curve = LearningCurve()

        def work(stop: Stop) -> Iterator[object]:
            for event in train_run(task, stop):
                if not isinstance(event, Run):
                    yield event
                    continue
                yield event, network
                if predict:
                    count = task.settings.threads or threads
                    yield from predict_images(self._prediction_task(list(task.pairs), event, count, network), stop)

        return work

    def _prediction(
        self, images: Iterable[str] | None, run: str | None, threads: int, client: ClientChoice = None, **options: Any
    ) -> Work:
        chosen, names = self.runs.get(run), self.images.chosen(images)
        self._folder.check_writable()
        task = self._prediction_task(names, chosen, threads, self.runs.networks.get(chosen.name))
        task = replace(task, client=resolve_client(client), **options)
        return lambda stop: predict_images(task, stop)

    def _prediction_task(self, names: list[str], run: Run, threads: int, network: Module | None) -> PredictionTask:
        images = self.images
        return PredictionTask(
            names, run, threads, images.pair, images.objects, images.image_fingerprint, images.mask_numbers(), network
        )

    def _export(self, folder: str | Path, formats: Sequence[str]) -> Export:
        names = list(self.images)
        output = OutputFolder(Path(folder), self.path, names, self.images.files())
        return Export(lambda: self._snapshot(names), output, formats)

    def _export_work(self, folder: str | Path, formats: Sequence[str]) -> Work:
        export = self._export(folder, formats)
        self.last_export = None

        def work(stop: Stop) -> Iterator[object]:
            files: list[Path] = []
            yield Progress(0, 1, "exporting")
            for file in export.files(stop):
                files.append(file)
                yield Progress(export.done, 1, f"{file.name} is written")
            yield ExportFinished(export.folder, tuple(files), export.stopped)

        return work
