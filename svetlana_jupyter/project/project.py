"""Images, annotations and classifiers of one analysis in a project folder.

Every action in a panel calls one method of `Project`. The state of a project changes only on the thread and event loop
that created it; background jobs post their events to that thread.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import pandas as pd
from traitlets import Any as AnyTrait
from traitlets import HasTraits, Int, Unicode

from svetlana_jupyter.core.classes import ClassScheme
from svetlana_jupyter.core.io.file_pairs import describe_skipped
from svetlana_jupyter.core.predictions import class_map, object_table, probability_map
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.core.stats.calibration import MIN_OBJECTS
from svetlana_jupyter.core.stats.outliers import HeldOutGroups, flag_unfamiliar_images
from svetlana_jupyter.errors import ProjectError, SettingsError, SvetlanaError
from svetlana_jupyter.project.accessors import BackgroundJobs, Plots
from svetlana_jupyter.project.annotation_store import Annotations, ObjectLabels, object_ids
from svetlana_jupyter.project.background_training import BackgroundTraining, RunAdded
from svetlana_jupyter.project.class_fractions import ClassFractions
from svetlana_jupyter.project.count_table import CountTable
from svetlana_jupyter.project.counts import CountComparison, compare_counts, count_objects, list_columns
from svetlana_jupyter.project.distributed import resolve_client
from svetlana_jupyter.project.evaluation import (
    CROSS_VALIDATION,
    IN_PROGRESS,
    TEST_SET,
    EvaluationData,
    outdated_text,
    score_run,
)
from svetlana_jupyter.project.exporters import Export, ExportFinished
from svetlana_jupyter.project.exporters.output_folder import OutputFolder
from svetlana_jupyter.project.exporters.snapshot import ResultsSnapshot, to_xarray
from svetlana_jupyter.project.features import DEFAULT_FEATURE_GROUPS, feature_table, measure_images, needs_measuring
from svetlana_jupyter.project.image_collection import ImageCollection, Source
from svetlana_jupyter.project.importers import read_imported_labels
from svetlana_jupyter.project.importers.imported_labels import ImportRequest, apply_import
from svetlana_jupyter.project.jobs import (
    JobRunner,
    JobState,
    Progress,
    Stop,
    Work,
    is_panel_call,
    panel_call,
    thread_count,
)
from svetlana_jupyter.project.known_files import checked_live, checked_once
from svetlana_jupyter.project.live import Live, LiveState
from svetlana_jupyter.project.live_results import LiveResult
from svetlana_jupyter.project.live_storage import RunKept
from svetlana_jupyter.project.mask_replacement import MaskReplacement
from svetlana_jupyter.project.object_features import ObjectFeatures
from svetlana_jupyter.project.open_folders import open_folder
from svetlana_jupyter.project.patch_previews import augmented_patches, check_pipeline
from svetlana_jupyter.project.prediction_job import (
    AllPredicted,
    ImagePredicted,
    PredictionTask,
    RunPredicted,
    predict_images,
)
from svetlana_jupyter.project.project_classes import ProjectClasses
from svetlana_jupyter.project.query_pools import QueryPools
from svetlana_jupyter.project.queues import Queue
from svetlana_jupyter.project.repr_html import project_report_html
from svetlana_jupyter.project.run_scoring import BEING_SCORED, NOT_SCORED, RunScored, RunScorings, Scoring
from svetlana_jupyter.project.run_store import LIVE, NOTHING_PREDICTED, RunStore
from svetlana_jupyter.project.runs import AUGMENTATION, COMPARISON, NETWORK, Run
from svetlana_jupyter.project.shown_run import ShownRun
from svetlana_jupyter.project.storage import Aspect, Notify, ProjectFolder
from svetlana_jupyter.project.sweep import PAPER_GRID, sweep, sweep_points, sweep_table
from svetlana_jupyter.project.test_set import TestSet
from svetlana_jupyter.project.training_job import FirstRun, LearningCurve, RunUnsaved, TrainingAbandoned, train_run
from svetlana_jupyter.project.training_task import (
    TrainingTask,
    check_masks,
    label_digest,
    readiness,
    resolve_setup,
    select_training_objects,
    stored_task,
)
from svetlana_jupyter.project.zip_archive import pack, unpack

if TYPE_CHECKING:
    import xarray as xr
    from distributed import Client
    from torch.nn import Module

    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.core.io.pixel_size import Spacing
    from svetlana_jupyter.core.io.table_files import TableSource
    from svetlana_jupyter.core.stats.metrics import SizeLimits
    from svetlana_jupyter.project.evaluation import Evaluation

    ClientChoice: TypeAlias = Client | Literal["local"] | None

SCORES = NETWORK, AUGMENTATION, COMPARISON


class Project(HasTraits):
    """Images, annotations and classifiers of one analysis, kept in a project folder.

    Parameters
    ----------
    path : str or Path
        The project folder. An existing project is opened; otherwise the folder is created.
    classes : iterable of str, optional
        Class names. New names are added to the classes of the project, and reported in `status` if it has others; a
        possible misspelling of a class is refused. No class is removed.
    annotator : str, optional
        Name under which annotations are saved; by default the user name on this computer.

    Attributes
    ----------
    images : ImageCollection
        The images by name.
    classes : ProjectClasses
        The classes, with methods to add, rename, recolor, merge, split and delete them.
    annotations : Annotations
        The annotations of all annotators and the current label of every object.
    test_set : TestSet
        The held-out test set, which `TestSet.draw` creates.
    runs : RunStore
        The finished trainings, oldest first; ``runs.current`` is the run whose results are shown.
    features : ObjectFeatures
        Features of all objects, from which `live` predicts.
    live : Live
        The live classifier, whose predictions follow the labels.
    live_state : LiveState
        What the live classifier shows.
    plot : Plots
        Figures of class counts, confusion matrices and example objects.
    background : BackgroundJobs
        Training, prediction and export in a background thread.
    classes_version, images_version, annotations_version, predictions_version, runs_version : int
        Counters that increase with every change, so that panels can observe changes.
    current_run : str
        Name of the run that tables, maps, counts and exports show; "" before the first training.
    job : JobState or None
        The running job.
    scoring : JobState or None
        The score, or the training, that is computed in the background.
    training_curve : LearningCurve or None
        Learning curve of the running or the last training.
    last_export : ExportFinished or None
        The last export that ran in the background.
    status, trouble : str
        The last completed action, and the last problem that could not be raised as an exception.

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
    scoring = AnyTrait(allow_none=True)
    live_state = AnyTrait()
    training_curve = AnyTrait(allow_none=True)
    last_export = AnyTrait(allow_none=True)
    status = Unicode()
    trouble = Unicode()

    def __init__(self, path: str | Path, classes: Iterable[str] | None = None, annotator: str | None = None) -> None:
        names = (
            ClassScheme().with_added(() if classes is None else classes).names
        )  # raises for duplicates before a folder is created
        super().__init__()
        notify = Notify(self._announce, partial(self.set_trait, "status"), self._report)
        self.path = _check_path(path, "sv.Project").absolute()
        self._folder = ProjectFolder(self.path)
        self._shared = open_folder(self.path)
        self._folder.lock = self._shared.lock
        self.images = ImageCollection(self._folder, notify)
        self.classes = ProjectClasses(self._folder, notify)
        self.annotations = Annotations(self._folder, annotator, self.images, self.classes, notify)
        self.classes.on_edit = self.annotations.refresh
        self.images.on_replaced = self.annotations.reload_masks
        self._outdated: set[str] = set()  # images that changed since they were predicted
        self._outdated_changed = False
        self.test_set = TestSet(self._folder, self.images, self.annotations, notify)
        self.runs = RunStore(self._folder, notify, partial(self.set_trait, "current_run"), self._score)
        self._unpredicted: dict[str, str] = {}  # why a run that is better has no predictions; "" if it has
        self.runs.on_saved = self._add_saved
        self._scoring = ""  # name of the run that a comparison of presets is about to score
        self.current_run = self.runs.current_name
        notes = (self.annotations.problem, self.annotations.note, self._folder.link_warning, self.runs.problem)
        self.trouble = self.annotations.file.trouble or " ".join(filter(None, notes))
        self.classes.find_use = lambda code: self.annotations.class_use(code) or self.runs.class_use(code)
        self._kept_fractions: tuple[tuple[object, ...], ClassFractions] | tuple[None, None] = None, None
        self.images.warnings.add_source(self._outdated_warning)
        self._masks = MaskReplacement(self._folder, self.images, self.annotations, self.classes)
        self._jobs = JobRunner(self._handle, self._show_job, self._report, self._shared.slot)
        self.job = self._jobs.state
        self.features = ObjectFeatures(self._folder, self.images, self._folder.read_settings, self.test_set.hidden)
        parts = self.features, self.images, self.annotations, self.test_set, self.classes, self.runs
        self.live = Live(*parts, self._folder, self._jobs, self._show_live, self._report)
        self.features.on_changed = self.live.images_changed
        self._shown = ShownRun(self.runs, self.live, self.images, self.classes)
        calls = self._handle, partial(self.set_trait, "scoring"), self._report
        scorings = self._shared.scorings, self._recreate_scoring, self._predict_better
        self._scorings = RunScorings(self._jobs, self.runs, *scorings, *calls)
        self._background_training = BackgroundTraining(self._jobs, self.runs, self._background_task, *calls)
        self.live.on_trains = lambda allowed: None if allowed else self._background_training.cancel()
        self.plot = Plots(self.images, self.classes, self._count, self.predictions, self.evaluate)
        works = self._training, self._prediction, self._export_work, self.live.keep_work
        self.background = BackgroundJobs(self._jobs, *works, self._start_scoring, self._is_being_scored)
        self._shared.announce("annotations")  # other objects of this folder may now read the log of this annotator
        self._shared.add_follower(self._follow)
        self.classes.extend(names)
        if self._folder.writable and not self._folder.settings_file.exists():
            self.settings = TrainingSettings()

    @classmethod
    def from_zip(cls, file: str | Path, folder: str | Path | None = None, annotator: str | None = None) -> Self:
        """Extract and open a project from a zip file written by `save_zip`.

        Parameters
        ----------
        file : str or Path
        folder : str or Path, optional
            New or empty folder to extract the project to; by default a folder next to the zip file, with the name of
            the project.
        annotator : str, optional
            As for `Project`.

        Raises
        ------
        ProjectError
            If the file is not a zipped project, contains links, paths outside its folder or more than 100,000 files,
            or takes more than 90 % of the free disk space, or if ``folder`` is not empty.
        """
        project = cls(unpack(_check_path(file, "sv.Project.from_zip"), folder), annotator=annotator)
        if missing := project.images.missing():
            project.trouble = f"{len(missing)} image files are missing, for example {missing[0]}. Copy them there."
        return project

    def save_zip(self, path: str | Path | None = None, *, arrays: bool = True) -> Path:
        """Write the project to one zip file, which `from_zip` opens again.

        The zip file contains the whole project folder: classes, annotations, settings, runs and their predictions.
        Images and masks outside the folder are referenced, not copied: keep them, preferably next to the project.

        Parameters
        ----------
        path : str or Path, optional
            The zip file, or a folder to write it to; by default it is written next to the project folder.
        arrays : bool
            Whether to include images that were added as arrays and are stored in the project. Without them the project
            opens, but these images cannot be shown.

        Returns
        -------
        Path
            The zip file, which is read back before it replaces an earlier file.

        Raises
        ------
        ProjectError
            If the project folder is missing or has more than 100,000 files, or if the zip file cannot be written.
        """
        if path is not None:
            path = _check_path(path, "project.save_zip")
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
        repair: str | None = None,
    ) -> None:
        """Add one image with its mask; adding the same files again changes nothing.

        Parameters
        ----------
        name : str
        image, mask : path or array
            Files are read lazily and never modified; arrays are copied into the project. If the image is given as
            several paths, each file is one channel. Outlines exported by QuPath (GeoJSON) are rasterized to a mask in
            the project; where two outlines overlap, the smaller one is on top, and `status` reports the overlap.
        axes : str, optional
            Axes of an image file that does not define them, for example ``"zyx"`` or ``"cyx"``.
        spacing : tuple of float, optional
            Micrometers per pixel, ``([z,] y, x)``; needed if image and mask state different pixel sizes.
        channels : sequence of str, optional
        groups : mapping of str to str, optional
            Values of the columns by which images are grouped: plate, well, patient, ...
        repair : {"components", "foreground", "unsigned"}, optional
            Add a repaired copy of the mask (`replace_mask`).
        """
        self.images.add(name, image, mask, repair, axes=axes, spacing=spacing, channels=channels, groups=groups)

    def add_images(
        self,
        images: str | Path,
        masks: str | Path,
        axes: str | None = None,
        spacing: Spacing | None = None,
        repair: str | None = None,
    ) -> pd.DataFrame:
        """Add all images that match a pattern, with the masks of the same names.

        Only the headers of the files are read.

        Parameters
        ----------
        images, masks : str
            Patterns such as ``"wells/{plate}_{well}.tif"``. Placeholders pair images with masks, name the images and
            become grouping columns (except ``{name}`` and ``{image}``); ``{channel}`` combines files that contain one
            channel each. A folder stands for all its files.
        axes, spacing, repair
            As for `add`.

        Returns
        -------
        DataFrame
            One row per pair of image and mask (`core.io.file_pairs.find_pairs`). ``problem`` is a sentence if the pair
            could not be added, otherwise "". ``note`` states what was converted or not used of the files, such as a
            pixel size in an unknown unit. A warning counts the pairs that were skipped, with the first note;
            ``attrs["remedies"]`` maps names of skipped pairs to the repair that they need ("swap" for an exchange).

        Raises
        ------
        InputError
            If no pair can be added.
        """
        table = self.images.add_matching(images, masks, axes, spacing, repair)
        if skipped := describe_skipped(table):
            self.status = skipped
            warnings.warn(skipped, stacklevel=2)
        return table

    def pair(self, name: str) -> ImagePair:
        """Open an image with its mask, lazily."""
        return self.images.pair(name)

    def objects(
        self, name: str, progress: Callable[[int, int], None] | None = None, wait: bool = False
    ) -> pd.DataFrame:
        """Return a table of the objects in the mask of an image.

        The table is computed on first use and stored (`core.objects.index_objects`). If the numbers in the mask do not
        seem to name objects, ``attrs["warning"]`` says so and how to repair it.

        Parameters
        ----------
        name : str
        progress : callable, optional
            Called with the number of finished steps and the total number of steps.
        wait : bool
            Whether to wait without a time limit while another thread computes the table. If False, an error is raised
            after a few seconds.
        """
        return self.images.warnings.attach(self.images.objects(name, progress, wait), [name])

    def annotate(
        self, image: str, label: ObjectLabels, class_name: str, source: str = "script", seconds: float | None = None
    ) -> None:
        """Assign a class to one or several objects in a single edit.

        An edit is one undo step. It is written to disk before this method returns.

        Parameters
        ----------
        image : str
        label : int or iterable of int
            Labels of the objects in the mask.
        class_name : str
        source : str
            Origin of the annotation, which is recorded in the annotation log. "random" states that the objects were
            drawn uniformly at random, elsewhere than by `queue`, so that `counts` may use them for intervals.
        seconds : float, optional
            Time for which the object was displayed before it was annotated.
        """
        self.annotations.annotate_each(dict.fromkeys(object_ids(image, label), class_name), source, seconds)

    def flag(
        self, image: str, label: ObjectLabels, flag: str, source: str = "script", seconds: float | None = None
    ) -> None:
        """Flag objects as "ambiguous", "bad_segmentation" or "skip" in a single edit.

        Ambiguous and badly segmented objects are excluded from training and counts, and are reported separately.
        Objects flagged as "skip" are not presented for review again.
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
            ``class_id`` (0 for flags) and ``class`` (the name of the class).
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
        """Import annotations from a file or table as a single edit.

        One undo reverts the whole import. Classes that are new to the project are added, with the colors of the file.

        Parameters
        ----------
        source : path or DataFrame
            One of the following.

            - A table (CSV, Excel or DataFrame) with one row per object. Its columns contain the image, the class, and
              the label in the mask, the position (x, y and z in pixels, or in the unit in the header), or both. The
              columns of ilastik, QuPath, CellProfiler, TrackMate, Imaris, ImageJ and napari are recognized. Where
              labels and positions disagree, positions count, which is reported.
            - Outlines or points from QuPath (GeoJSON). An outline labels the object with which it overlaps by more
              than half (IoU), and a point labels the object at its position.
            - A class image (TIFF, HDF5, ...), in which each pixel has the class of its object.
            - The folder of a napari-svetlana project. Its images are added if they are not in this project.
        image : str, optional
            The image of the objects, if the source does not name it; by default the image with the name of the file,
            or the only image of the project.
        column : str, optional
            The column of a table that contains the classes. By default it is the first of "annotation", ilastik's
            "User Label", "class", ..., "Predicted Class", so that annotations take precedence over predictions.
        names : mapping of int to str or sequence of str, optional
            Names of the class numbers in a class image or a napari-svetlana project. The first name in a sequence
            belongs to number 1 of a class image, but to number 0 of a napari-svetlana project.
        overwrite : bool
            Whether an imported label replaces a different existing label. If False, the existing label is kept and the
            difference is reported.

        Returns
        -------
        DataFrame
            One row per label of the source: ``image``, ``object``, ``class``, ``outcome`` and ``why`` (the reason).
            Outcomes are "taken" (imported), "known" (the object has this label already), "differs" (the object has
            another label), "contradicts" (the source has two classes for the object), "earlier" (a later row replaces
            this one), "no class", "not found" and "set aside" (the row is of another image, or of a region instead of
            an object). ``attrs["summary"]`` and `status` summarize the import with the number of each.

        Raises
        ------
        InputError
            If the source cannot be used, for example because its rows are of several time points or in an unknown
            unit; nothing is changed then.
        """
        self._folder.check_writable()
        request = ImportRequest(self.images, self.classes.scheme, image, column, names)
        labels = read_imported_labels(request, source)
        report = apply_import(self.images, self.classes, self.annotations, labels, overwrite)
        self.status = report.attrs["summary"]
        return report

    def check_mask(self, name: str, mask: Source | None = None) -> pd.DataFrame:
        """Preview the result of `replace_mask`, without changing anything.

        This method may be called from any thread. A later call of `replace_mask` with the same mask reuses the result.

        Parameters
        ----------
        name : str
        mask : path or array, optional
            By default the file of the current mask, which another program has overwritten.

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

    def replace_mask(self, name: str, mask: Source | None = None, *, repair: str | None = None) -> pd.DataFrame:
        """Replace the mask of an image, and carry annotations over to the new objects.

        Nothing is deleted. The annotation log with its undo history, the old mask and the predictions for the old mask
        are kept, but these predictions are no longer shown. A new object takes over an annotation if more than half of
        the pixels that it shares with old objects belong to objects with that annotation; otherwise it is not
        annotated. If the file of the old mask was overwritten, objects are matched by their bounding boxes, which the
        project has kept.

        Parameters
        ----------
        name : str
        mask : path or array, optional
            The new mask, of the same shape; by default the file of the current mask, which another program has
            overwritten. A file is read in place, an array is copied into the project, and outlines
            (GeoJSON) are rasterized to a mask in the project.
        repair : {"components", "foreground", "unsigned"}, optional
            Use a repaired copy of the mask. "components" numbers each connected piece of equal pixels, for masks of
            classes and numbers that occur twice; "foreground" numbers each connected area that is not 0, for numbers
            changed by interpolation; "unsigned" reads negative numbers as unsigned.

        Returns
        -------
        DataFrame
            One row per annotated object, indexed by its old label: ``class``; ``status`` ("kept", "relabeled", "split"
            into several objects, "merged" with other objects, or "lost"); ``new`` (labels of the new objects in its
            place); ``share`` (fraction of the old object that the new objects cover); ``carried`` (the new objects that
            have taken over its annotation). ``attrs["matched_by"]`` is "pixels" or "boxes".

        Raises
        ------
        InputError
            If the mask cannot be used; nothing is changed then.
        """
        with self._jobs.lane.hold(), self._folder.lock:
            self._jobs.check_idle()
            self._background_training.restart()
            if repair is None:
                report, self.status = self._masks.replace(name, mask)
            else:
                report, self.status = self._masks.repair(name, mask, repair)
        self._announce("predictions")
        self.images.warnings.issue(self.images.warnings.of_images([name]))
        return report

    @property
    def settings(self) -> TrainingSettings:
        """Settings of the next training, stored in ``training.json`` of the project.

        The file may also be edited by hand.
        """
        return self._folder.read_settings()

    @settings.setter
    def settings(self, settings: TrainingSettings) -> None:
        if not isinstance(settings, TrainingSettings):
            raise SettingsError(
                f"Settings must be TrainingSettings, got {type(settings).__name__}. Change single settings with "
                "project.settings = project.settings.changed(epochs=50)."
            )
        check_pipeline(self.images, self.annotations.class_ids(), settings)
        self._folder.write_text(self._folder.settings_file, settings.to_json() + "\n")
        self.live.images_changed()  # the allowed cues may have changed

    def preview_augmentation(
        self, image: str, label: int, settings: TrainingSettings | None = None, n: int = 8
    ) -> xr.DataArray:
        """Return ``n`` augmented patches of an object, as used in training.

        The dimensions of the array are (n, c, [z,] y, x), where c is the channel.

        Parameters
        ----------
        settings : TrainingSettings, optional
            By default the settings of the project; their seed determines the random augmentation.
        """
        settings = settings or self.settings
        return augmented_patches(self.images, self.annotations.class_ids(), self.runs, image, label, settings, n)

    def readiness(self) -> str:
        """Return a sentence about what is missing for training; "" if training can start."""
        try:
            settings = self.settings
        except SettingsError:  # the settings panel reports invalid settings
            settings = TrainingSettings()
        try:
            with checked_live():
                return self._missing(*self._training_objects(settings.exclude_border, settings.size))
        except ProjectError as error:  # a mask was overwritten
            return str(error)

    def train(
        self,
        settings: TrainingSettings | Mapping[str, Any] | None = None,
        *,
        predict: bool = False,
        search: bool = False,
        network: Module | None = None,
        **changes: Any,
    ) -> Run:
        """Train a classifier on all annotations, and return the finished run.

        The run can be used at once. Its score is computed in the background, or before the results of the next call
        that needs it, such as `evaluate`, `counts` and, with 50 labels or more, `predictions`, whose probabilities are
        calibrated by the same held-out objects. The score of a comparison of presets is known at once.

        With the default preset "auto", several presets (sets of training settings) that use only the allowed cues are
        compared, and the best one is selected (`learn.preset_search`). A random forest is stored as the first run after
        seconds; a second run follows if another preset is better, so that a stop (Ctrl-C) leaves the best so far. Later
        trainings with the same settings and classes reuse the selected preset until the number of annotations has
        doubled.

        Parameters
        ----------
        settings : TrainingSettings, optional
            Settings for this run only; by default the settings of the project. Pass ``run.settings`` to repeat an
            earlier training.
        predict : bool
            Whether to classify every object of every image after training.
        search : bool
            Whether to compare the presets again.
        network : torch.nn.Module, optional
            Network to train instead of the architecture in the settings. It must return logits of shape (n, classes)
            for patches of shape (n, channels, [z,] y, x), including the mask channel. A copy of it is trained.
        **changes
            Individual settings to change, for example ``epochs=50`` or ``patches={"size": 64}``. A network class passed
            as ``architecture="package.module:Name"`` is imported.

        Returns
        -------
        Run
            The finished run. It is now the `current_run`, unless that is ``live`` or a run that has replaced it: then
            the new run replaces it if its held-out predictions are better, once it is scored and all images are
            predicted.
        """
        threads = thread_count("script")
        self._jobs.run("training", self._training(settings, changes, predict, network, threads, search))
        return self.runs[-1] if self.runs else self.runs.current

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
        """Classify every object of the given images, by default of all images.

        Predictions are stored while they are computed: after Ctrl-C or a power failure, the same call continues with
        the remaining objects. An image is skipped if it has predictions and the image, its mask and its objects have
        not changed since.

        Parameters
        ----------
        images : iterable of str, optional
            Names of the images.
        run : str, optional
            Name of the run whose classifier is used; the current run by default. The run "live" predicts all images
            (`live`).
        client : dask.distributed.Client or "local", optional
            Client of the dask cluster that computes the predictions, or "local" for this machine. By default, the
            active client is used if there is one. The workers must have access to the images under the same paths.
        resume : bool
            Whether to skip objects that are predicted already.
        average : bool
            Whether to average the predictions over the mirrored and rotated views that the run was trained with. Every
            view takes as long as one prediction.
        network : torch.nn.Module, optional
            The network of a run that was trained in an earlier session with a network passed as an object.

        Raises
        ------
        ClassifierError
            If the classifier does not fit an image; raised before any prediction.
        InputError
            If some images could not be predicted; raised after all other images are predicted.
        """
        if (run or self.current_run) == LIVE:
            self.live.update()
            return
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
        """Measure every object of the given images, by default of all images.

        Each object is measured only once, since features are cached. Ctrl-C keeps finished measurements.

        Parameters
        ----------
        images : iterable of str, optional
            Names of the images.
        groups : iterable of str
            Feature groups, any of "shape", "intensity", "texture", "ring" (intensity around the object),
            "ring_texture", "orientation", "position", "blob" (small structures at several scales) and "oriented" (Gabor
            filters, 2D only); all except "ring_texture", "blob" and "oriented" by default.
            `sv.describe_measurements()` lists the features of each group with their units.
        ring : float, optional
            Width of the annulus around an object in pixels; by default the width in the settings.

        Returns
        -------
        DataFrame
            The table of `predictions` with one additional column per feature: ``area_um2``, ``dna_mean``, ... Lengths,
            areas and volumes are in micrometers if the spacing of an image is known, otherwise in pixels and without
            ``_um`` in the name. A feature is NaN if it is undefined for an object.
        """
        names = self.images.chosen(images)
        if not isinstance(groups, Iterable):
            raise SettingsError(f'groups must be a list of feature groups, got {groups!r}. Pass ["shape"].')
        groups = [groups] if isinstance(groups, str) else groups
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
        """Cross-validate every combination of settings, as in Table 2 of the paper.

        Each result is stored as soon as it is computed: after Ctrl-C, the same call continues with the remaining
        combinations. The test set is not used. The score of the best combination is slightly too high, since it is the
        best of many.

        Parameters
        ----------
        settings : TrainingSettings, optional
            Settings to start from; by default the settings of the project.
        sampling : int, optional
            Pixels per side to which patches are resampled; smaller patches are faster.
        **values
            Settings to change. A setting given as a list is varied; any other value applies to all combinations. By
            default, the settings of the paper are varied: ``depth=[2, 3], width=[2, 4, 8, 16, 32, 64]``.

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
        """Ask the running background job to stop, and keep its finished results.

        A stopped training keeps the best network so far. Without a job, the scoring in the background is stopped; it
        continues with the next call that needs the score.
        """
        if self.job is None:
            self._background_training.cancel()
            self._scorings.pause()
            self._bump("runs")
        self._jobs.stop()

    @checked_once()
    def predictions(self, images: Iterable[str] | None = None) -> pd.DataFrame:
        """Return a table with the label and prediction of every object.

        The columns are described in `core.predictions.object_table`. Predictions of labeled objects by the run "live"
        are leave-one-out (`project.live.Live.update`). ``attrs["warning"]`` contains warnings about images whose
        results may be wrong.
        """
        names = self.images.chosen(images)
        if not names:
            raise ProjectError("The project has no images yet. Add some with project.add_images(...).")
        self._settle()
        table = self.images.warnings.attach(pd.concat([self._object_table(name) for name in names]), names)
        if self._outdated_changed and self.images.is_owned:
            self._outdated_changed = False
            self._bump("images")  # panels show the warning
        return table

    def probabilities(self, image: str, run: str | None = None) -> pd.DataFrame:
        """Return the predicted class and class probabilities of each object of an image.

        Returns
        -------
        DataFrame
            Indexed by object: ``predicted`` (class id), ``probability`` and ``p_<class id>`` per class. Probabilities
            are calibrated if the run has a calibration. Those of labeled objects by the run "live" are leave-one-out.
            The table is empty before the image is predicted; objects of the test set are left out until they are
            annotated.
        """
        self.images.check([image])
        if not (run or self.current_run):
            return NOTHING_PREDICTED
        self._settle(run)
        chosen = self.runs.get(run)
        return self.test_set.hide(self._all_probabilities(chosen, image), image, chosen.name)

    def failed(self, images: Iterable[str] | None = None, run: str | None = None) -> pd.DataFrame:
        """Return the objects that a run could not predict.

        Their pixels are unreadable, NaN or infinite.

        Returns
        -------
        DataFrame
            Indexed by ``(image, object)``, with the reason in ``why``. `predictions` lists these objects without a
            prediction; the next call of `predict` tries to predict them again.
        """
        return self.runs.failed(self.runs.get(run), self.images.chosen(images))

    @checked_once()
    def class_map(self, image: str) -> xr.DataArray:
        """Return a lazy map of the class of each pixel (`core.predictions.class_map`)."""
        return class_map(self.pair(image).mask, self._object_table(image).droplevel("image"), self.classes.scheme)

    @checked_once()
    def probability_map(self, image: str) -> xr.DataArray:
        """Return a lazy map of the probability of the predicted class.

        Pixels without a prediction are NaN.
        """
        return probability_map(self.pair(image).mask, self._object_table(image).droplevel("image"))

    @checked_once()
    def counts(
        self,
        by: Sequence[str] | str = (),
        conditions: TableSource | None = None,
        *,
        exclude_border: bool = False,
        size: SizeLimits = (None, None),
    ) -> pd.DataFrame:
        """Count the objects of each class, per image, grouping column or condition.

        Predicted counts are biased where the classifier confuses classes. The fractions are therefore estimated from
        its probabilities, with intervals, if at least 20 objects that were drawn at random are labeled: objects of
        ``queue("random")``, of the test set, or labeled with ``annotate(..., source="random")``. Annotated objects
        count with their annotated class.

        Parameters
        ----------
        by : str or sequence of str
            "image", grouping columns or condition columns, for example ``["plate", "well"]`` or "dose"; by default all
            objects are counted together.
        conditions : path or DataFrame, optional
            A CSV file or table with one row per well (or per patient, image, ...) and columns for its treatment
            (`core.io.table_files.join_conditions`). Conditions that are constant within a group are added to the result
            as columns. `status` names rows without a matching image, and images without a matching row, whose
            conditions are missing.
        exclude_border : bool
            Whether to leave out objects that touch the border of their image.
        size : tuple of float or None
            Minimum and maximum size of an object in pixels (voxels): ``(50, None)`` leaves out small ones.

        Returns
        -------
        DataFrame
            One row per group and class (tidy format): ``count`` (objects of this class in `predictions`), ``total``,
            ``estimate`` (``fraction`` × ``total``), ``fraction`` with its 95 % confidence interval (``low``, ``high``;
            NaN without an interval), ``method`` ("annotated", "corrected", or "predicted" for the plain count),
            ``left_out`` (objects that are not counted) with one column per reason
            (`core.stats.metrics.count_classes`), and ``note``, which says why there is no interval, or what it assumes.
            The sampling units of the interval are the wells or patients of a group, or else its images; sites of one
            well are a single unit.
        """
        counted = self._count(by, conditions, exclude_border=exclude_border, size=size)
        table = CountTable(counted)
        table.attrs.update(counted.attrs)  # pandas drops the warning
        return table

    @checked_once()
    def compare_counts(
        self,
        manual: TableSource | Mapping[str, float],
        class_name: str | None = None,
        *,
        exclude_border: bool = False,
        size: SizeLimits = (None, None),
    ) -> CountComparison:
        """Compare the counts of a class with manual counts, per well or per image.

        The project's value is the ``estimate`` of `counts`, which equals ``count`` without randomly drawn labels.

        Parameters
        ----------
        manual : path, DataFrame or mapping
            A CSV file or table with one row per well or image, which is named in a column "image" or in a grouping
            column such as "well". The counts are in a column with the name of the class, or in a column "count" next to
            a column "class". Other columns, for example a treatment, are kept. A mapping contains the count of each
            image by image name.
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
            If fewer than three rows of the table match the project.
        """
        self._settle(needed=(NETWORK,))
        objects, groups, classes = self.predictions(), self.images.groups(), self.classes.scheme
        source = self._fractions()
        comparison = compare_counts(objects, groups, classes, source, manual, class_name, exclude_border, size)
        self.status = str(comparison)
        self.images.warnings.issue({"": comparison.unmatched} if comparison.unmatched else {})
        return comparison

    @checked_once()
    def evaluate(self, run: str | None = None) -> Evaluation:
        """Return the accuracy report of a run.

        Accuracy is measured on the test set if it is annotated, otherwise by cross-validation, which is computed first
        if it is missing. Panels do not wait for it.
        """
        self._settle(run, SCORES)
        return self._evaluate(run)

    def _evaluate(self, run: str | None = None) -> Evaluation:
        chosen = self.runs.get(run)
        tested = dict.fromkeys(image for image, _ in self.test_set.objects)
        self.images.check(tested)
        exclude_border, size = chosen.settings.get("exclude_border", False), chosen.settings.get("size")
        labels, _ = self._training_objects(exclude_border, size)
        outdated = chosen.annotations != label_digest(labels["class_id"])
        images = self.compare_images(run=chosen.name)
        report = replace(self._score(chosen), outdated=outdated, images=images)
        changed = tuple(image for image in tested if report.source == TEST_SET and self._outdated_warning(image))
        return replace(report, outdated_images=changed)

    def compare_images(self, images: Iterable[str] | None = None, run: str | None = None) -> pd.DataFrame:
        """Test each predicted image for out-of-distribution objects.

        The test counts the objects per image that are unlike all annotated objects (`core.stats.outliers`).

        Parameters
        ----------
        images : iterable of str, optional
            Names of the images; all by default.
        run : str, optional
            Name of the run; the current run by default.

        Returns
        -------
        DataFrame
            Indexed by image: ``asked`` (number of randomly drawn objects that were compared), ``unlike`` (fraction of
            these that are outlying; 5 % are expected), ``annotated`` (number of annotated objects), ``p`` (p-value) and
            ``warn`` (whether the image as a whole is out-of-distribution: annotate some of its objects before relying
            on its predictions). The table is empty if too few objects are annotated for the test.
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

    @checked_once()
    def explain(self, image: str, label: int, class_name: str | None = None, run: str | None = None) -> xr.Dataset:
        """Return the patch of an object and its saliency map (Grad-CAM).

        The patch contains the pixels that the network receives.

        Parameters
        ----------
        image : str
        label : int
        class_name : str, optional
            The class to explain; by default the one that the network predicts.
        run : str, optional
            The run whose network explains; by default the current run or, if that has no network, the newest run with
            one. ``attrs["run"]`` of the result names it.

        Raises
        ------
        ProjectError
            If no run has a network, or if the object belongs to the test set and is not annotated yet.
        """
        from svetlana_jupyter.learn.classifier import load_classifier
        from svetlana_jupyter.learn.gradcam import explain

        class_id = self.classes.by_name(class_name).id if class_name else None
        if label in self.test_set.hidden(image):
            raise ProjectError(
                f"Object {label} of {image!r} belongs to the test set, so its prediction is hidden. Annotate it first."
            )
        self.images.check([image])
        chosen = self.runs.with_network() if run is None else self.runs.get(run)
        classifier = load_classifier(chosen.classifier_folder(), self.runs.networks.get(chosen.name))
        explanation = explain(self.pair(image), self.objects(image), label, classifier, class_id)
        return explanation.assign_attrs(run=chosen.name)

    def queue(
        self,
        kind: str = "random",
        seed: int = 0,
        images: Iterable[str] | None = None,
        near: tuple[str, int] | None = None,
        classes: Sequence[str] = (),
    ) -> Queue:
        """Return a queue of objects to review, with the reason for each.

        Parameters
        ----------
        kind : str
            Order of the objects:

            - "random", uniformly at random, which is recorded for `counts`;
            - "useful", the objects from which the live classifier learns most, every fourth of them drawn at random;
              "diverse", typical objects that differ from each other; "unlike", far from all labeled objects;
            - "uncertain", the least certain prediction first; "rare", the likeliest of the class with the fewest
              labels; "disagreement", where the current and the newest other run differ most; "confused", between the
              two ``classes``; "predicted", predicted as the class in ``classes``;
            - "suspect", labeled objects whose label is unlikely according to all other labels;
            - "near", by distance from the object ``near`` in the same image; "similar", by the similarity of the
              features to those of ``near``; "image", image by image; "test", the
              objects of the test set, which no other queue contains.
        seed : int
            Seed of the random order.
        images : iterable of str, optional
            Names of the images to review; all by default. A random queue of some images is no draw over all objects:
            it is not recorded.
        near : (image, label), optional
            The object that the queue "near" or "similar" starts from.
        classes : sequence of str
            Names of the two classes of the queue "confused", or of the class of "predicted".
        """
        names = self.images.chosen(images)
        parts = self.images, self.test_set, self.classes, self.runs, self.features, self.live, self.probabilities
        pools = QueryPools(*parts)
        return Queue(
            self.images, self.annotations, self.test_set, self.predictions, pools, kind, seed, names, near, classes
        )

    def export(self, folder: str | Path, formats: Sequence[str] = ("csv",)) -> list[Path]:
        """Write the current results to an output folder, and return the files.

        Parameters
        ----------
        folder : str or Path
            The output folder, created if it does not exist. It must not contain images or masks, and it must not be
            inside the project folder. Files of an earlier export are replaced; other files are kept.
        formats : sequence of str
            "csv", "parquet", "excel" (tables), "anndata" (for scanpy), "tiff" (class maps for ImageJ), "ome-tiff",
            "masks" (one per class), "ome-zarr", "geojson" (outlines for QuPath), "patches" (of annotated objects).

        Raises
        ------
        InputError
            If a format is unknown.
        ProjectError
            If the folder cannot be used, a format cannot represent the results, or a file cannot be written. Folder and
            formats are checked before any file is written, and every file is written atomically.
        """
        export = self._export(folder, formats)
        self._settle(needed=(NETWORK,))
        with self._jobs.lane.hold():
            return list(export.files())

    def to_xarray(self, images: Iterable[str] | None = None) -> xr.Dataset:
        """Return the object table as a Dataset (`core.predictions.object_dataset`).

        The Dataset has the dimensions ``object`` and ``class`` and includes cached measurements. Save it with
        ``to_netcdf("objects.nc")`` or ``to_zarr``.
        """
        self._settle(needed=(NETWORK,))
        return to_xarray(self._snapshot(self.images.chosen(images)))

    def _repr_html_(self) -> str:
        return project_report_html(self.path.name, self.images, self.annotations, self.classes, self.runs)

    def _bump(self, aspect: Aspect) -> None:
        name = f"{aspect}_version"
        self.set_trait(name, getattr(self, name) + 1)
        if aspect == "images":
            self.live.images_changed()
        elif aspect == "annotations":
            self.live.request()
        elif aspect == "classes":
            self._background_training.follow_classes(self.classes.scheme)
            self.live.request()
        elif aspect == "predictions":
            self.live.hide()

    def _announce(self, aspect: Aspect) -> None:
        self._bump(aspect)
        self._shared.announce(aspect, self._follow)

    def _follow(self, aspect: Aspect) -> None:
        """Read a change that another `Project` object of this folder has made."""
        match aspect:
            case "classes":
                self.classes.reload()
            case "images":
                self.annotations.reload_masks()
            case "annotations":
                self.annotations.reload_others()
            case "predictions" | "runs":
                self.runs.reload()

    def _report(self, text: str, was: str | None = None) -> None:
        if was is None or self.trouble == was:
            self.trouble = text

    def _handle(self, event: Any) -> None:
        """Apply an event of a job; only called on the thread that created the project."""
        match event:
            case LearningCurve():
                self.training_curve = event
            case Run() as run, network, stays:
                self._scoring = run.name
                self.runs.add(run, network)
                self._show_trained(run, stays)
            case RunUnsaved(save), network, _:
                self.runs.keep_unsaved(save, network)
            case RunAdded(run):
                self.runs.add(run)
            case RunPredicted(run, shown) if self.current_run == shown:
                self.runs.choose(run.name)
            case Scoring():
                self._scorings.add(event)
            case RunScored(run, is_provisional):
                self._scoring = ""
                self._show_score(run, is_provisional)
            case TrainingAbandoned():
                self.status = "Stopped before anything was trained."
            case ImagePredicted():
                self.runs.forget_predictions(event.run, event.image)
                self._report_predicted(AllPredicted((event,)))
            case AllPredicted():
                self._report_predicted(event)
            case LiveResult() | LiveState():
                self.live.handle(event)
            case RunKept(run):
                self.runs.add(run)
                self.status = f"Kept the live predictions as run {run.name}."
            case ExportFinished():
                self.last_export, self.status = event, event.text

    def _show_trained(self, run: Run, stays: bool) -> None:
        """Show a new run, unless the run that is shown stays for now."""
        self.status = run.summary
        if self._shown.is_automatic:
            self.status = f"{run.summary}. {self._shown.stays} until a score shows that the run is better."
        elif stays:
            self.status = f"{run.summary}. {self._shown.stays} for now."
        else:
            self.runs.choose(run.name)

    def _add_saved(self, run: Run) -> None:
        """Show a run that was saved after its training, or find out if it is better."""
        self._show_trained(run, self._shown.is_automatic)
        if self._shown.is_automatic and run.missing_scores:
            self._scorings.start(run, may_replace=True)
        elif self._shown.is_automatic:  # its comparison of presets is lost
            self.status = f"{run.summary}. {self._shown.why_not(run)}"

    def _show_score(self, run: Run, is_provisional: bool = False) -> None:
        """Show a new score, which may come while a later one is known already."""
        known = self.runs.get(run.name)
        is_first = known.note == NOT_SCORED
        if not is_first and len(run.missing_scores) > len(known.missing_scores):
            return
        self.runs.update(run)
        unpredicted, why_not = self._unpredicted.pop(run.name, f"Choose run {run.name} to see its predictions."), ""
        if is_first and not self._shown.is_automatic and self.current_run != run.name:
            why_not = unpredicted
        elif is_first and self.current_run != run.name:
            until_scored = f"{self._shown.stays} until a score shows that the run is better."
            why_not = until_scored if is_provisional else self._shown.why_not(run) or unpredicted
            if not why_not:
                self._shown.replace(run)
        if not is_first and self.current_run != run.name:
            return
        try:
            self.status = f"{self._evaluate(run.name).text} {why_not}".rstrip()
        except ProjectError as error:  # a mask was overwritten during the training
            self.trouble = str(error)

    def _show_job(self, state: JobState | None) -> None:
        if state is None and self._scoring:  # the training ended without a score
            self._scoring = ""
            self._bump("runs")
        self.job = state

    def _is_being_scored(self, run: Run) -> bool:
        """Return whether missing scores of a run are being computed."""
        return run.name == self._scoring or self._scorings.is_awaited(run)

    def _score(self, run: Run) -> Evaluation:
        """Return the report of a run; it says if a score is being computed."""
        is_awaited = self._is_being_scored(run)
        problem = self._scorings.problems.get(run.name, "")
        if (is_awaited and NETWORK in run.missing_scores) or run.name == self._scoring:
            run = replace(run, note=BEING_SCORED)
        elif problem and run.missing_scores:
            run = replace(run, note=f"{run.note} {problem}")
        report = score_run(run, self._evaluation_data())
        if report.network is None and is_awaited:
            return replace(report, source=IN_PROGRESS)
        if is_awaited and report.source == CROSS_VALIDATION and COMPARISON in run.missing_scores:
            return replace(report, text=f"{report.text} A random forest on the same objects is being scored.")
        return report

    def _settle(self, run: str | None = None, needed: Sequence[str] = ()) -> None:
        """Compute missing scores before results are read.

        Nothing is computed for a panel, or while a job runs. By default, only the scores are computed on which
        predictions depend, because they calibrate the probabilities.
        """
        if is_panel_call() or self.job is not None or not self._folder.writable:
            return
        name = run or self.current_run
        if run is None and self._shown.is_automatic:
            for candidate in self._scorings.candidates():
                self._scorings.finish(candidate.name, (NETWORK,))
            name = self.current_run
        if name and name != LIVE:
            labels = sum(self.runs.get(name).labels.values())
            calibrates = (NETWORK,) if labels >= MIN_OBJECTS and name not in self._scorings.problems else ()
            self._scorings.finish(name, needed or calibrates)

    def _start_scoring(self, run: str | None) -> None:
        self._scorings.start(self.runs.get(run))
        self._bump("runs")

    def _recreate_scoring(self, run: Run) -> Scoring:
        """Return the scoring of a stored run; raise a `ProjectError` if there is none."""
        parts = self.runs, self.images, self.annotations.edit_groups, self._folder.runs_folder
        return Scoring(run, stored_task(run, *parts, self.features.for_training, self.runs.networks.get(run.name)))

    def _predict_better(self, run: Run, stop: Stop) -> Iterator[object]:
        """Predict all images with a run that is better than the shown one."""
        if not self._shown.is_automatic or NETWORK in run.missing_scores or self._shown.why_not(run):
            return
        network, threads = self.runs.networks.get(run.name), run.settings["threads"]
        try:
            yield from predict_images(self._prediction_task(list(self.images), run, threads, network), stop)
            problem = f"The prediction with run {run.name} was stopped." if stop() else ""
        except SvetlanaError as error:
            problem = str(error)
        self._unpredicted[run.name] = f"{self._shown.stays}. {problem}" if problem else ""

    def _report_predicted(self, predicted: AllPredicted) -> None:
        events = predicted.images
        compared = self.compare_images([event.image for event in events], events[0].run)
        self.status, trouble = predicted.messages(compared)
        self.trouble = trouble or self.trouble

    def _all_probabilities(self, run: Run, image: str) -> pd.DataFrame:
        """Return the predictions of a run for an image, including hidden predictions."""
        return self.runs.probabilities(run, image, self.images.entry(image).mask_number, self.classes.merged)

    def _count(
        self,
        by: Sequence[str] | str,
        conditions: TableSource | None,
        units: Sequence[str] | None = None,
        **options: Any,
    ) -> pd.DataFrame:
        """Return the table of `counts`; ``units`` name the sampling units."""
        by = list_columns(by)
        self._settle(needed=(NETWORK,))
        objects, groups, classes = self.predictions(), self.images.groups(), self.classes.scheme
        table, remark = count_objects(objects, groups, classes, self._fractions(), by, conditions, units, **options)
        self.status = remark or self.status
        self.images.warnings.issue({"": remark} if remark else {})
        return self.images.warnings.attach(table, self.images)

    def _fractions(self) -> ClassFractions:
        """Return the estimator of class fractions, which is kept until data change."""
        versions = self.annotations_version, self.classes_version, self.images_version, self.predictions_version
        key = self.current_run, self.runs_version, *versions, frozenset(self._outdated)
        if self._kept_fractions[0] != key:
            run, masks = self.runs.current if self.current_run else None, self.images.mask_numbers()
            predicted = {
                name: NOTHING_PREDICTED
                if run is None
                else self.runs.probabilities(run, name, mask, self.classes.merged, calibrated=False)
                for name, mask in masks.items()
            }
            labels, test_set = self.annotations.class_ids(), self.test_set.objects
            drawn = labels[labels.index.isin([*self.annotations.drawn_objects(), *test_set])]
            where = drawn, test_set, bool(self.test_set.per)
            fractions = ClassFractions(run, self.classes.scheme, *where, predicted, masks, self._outdated)
            self._kept_fractions = key, fractions
        return self._kept_fractions[1]

    def _object_table(self, name: str) -> pd.DataFrame:
        self.images.check([name])  # may read the annotations again
        groups, labels, classes = self.images.entry(name).groups, self.annotations.labels, self.classes.scheme
        predictions = self.probabilities(name)
        known = None if predictions.empty else predictions
        return object_table(name, self.objects(name), groups, labels, known, classes, self.current_run)

    def _outdated_warning(self, image: str) -> str:
        """Return a warning if an image has changed since it was predicted, else ""."""
        if not self.current_run:
            return ""
        run = self.runs.current
        try:
            self._all_probabilities(run, image)
            with checked_live():
                same = self.images.has_same_pixels(image, self.runs.stored_attributes(run, image))
        except (SvetlanaError, OSError):  # reading the image reports it
            return ""
        if same == (image in self._outdated):
            self._outdated ^= {image}
            self._outdated_changed = True
        return "" if same else outdated_text([image])

    def _evaluation_data(self) -> EvaluationData:
        classes, flags, test_set = self.classes.scheme, self.annotations.flag_counts(), self.test_set.table()
        images, drawn = self.images, self.annotations.drawn_objects()
        return EvaluationData(
            classes, images.snapshot(), flags, test_set, drawn, images.objects, self._all_probabilities
        )

    def _snapshot(self, names: Sequence[str]) -> ResultsSnapshot:
        """Return the current results; may be called from any thread during annotation."""
        for name in names:
            self.images.objects(name, wait=True)
        with self._folder.lock, panel_call():
            labels = self.labels().query("action == 'label'")
            labels = labels[labels.index.get_level_values("image").isin(names)]
            test_set = [object_id in self.test_set for object_id in labels.index]
            table, run = self.predictions(names), self.runs.current.title if self.current_run else ""
            table["run"] = table["run"].mask(table["run"] == LIVE, run)
            return ResultsSnapshot(
                self.path.name,
                self.images.pair,
                self.images.objects,
                self.settings,
                table,
                labels[["class", "class_id"]].assign(test_set=test_set),
                self.classes.scheme,
                run,
                {name: self.images[name].groups for name in names},
                self._fractions(),
                self.images.warnings.of_images(names),
            )

    def _training_objects(self, exclude_border: bool, size: SizeLimits | None) -> tuple[pd.DataFrame, str]:
        """Return the labels used for training, and a sentence about excluded labels."""
        labels = self.test_set.training_labels()
        labels = labels[labels.index.get_level_values("image").isin(list(self.images))]
        self.images.check(labels.index.unique("image"))
        return select_training_objects(labels, self.images.objects, exclude_border, size)

    def _missing(self, labels: pd.DataFrame, explanation: str) -> str:
        counts = labels["class_id"].value_counts().reindex(self.classes.ids, fill_value=0)
        named = counts.set_axis(self.classes.names)
        return self.annotations.problem or readiness(bool(self.images), named, explanation)

    def _task(
        self,
        settings: TrainingSettings | None,
        changes: Mapping[str, Any],
        threads: int,
        network: Module | None = None,
        search: bool = False,
    ) -> TrainingTask:
        if settings is not None and not isinstance(settings, TrainingSettings):
            raise SettingsError(f"Settings must be TrainingSettings, got {settings!r}. Pass single ones as epochs=50.")
        wanted = (settings or self.settings).changed(**changes)
        with self._folder.lock:  # in the background, labels are added at the same time
            labels, explanation = self._training_objects(wanted.exclude_border, wanted.size)
            edit_groups, masks = self.annotations.edit_groups(), self.images.mask_numbers()
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
            masks=masks,
            edit_groups=edit_groups,
            classes=self.classes.scheme,
            setup=setup,
            settings=setup.settings.changed(threads=setup.settings.threads or threads),
            runs=tuple(runs.values()),
            folder=self._folder.runs_folder,
            search=search,
            features=self.features.for_training,
            check_masks=partial(check_masks, self.images, labels.index.unique("image"), masks),
        )

    def _training(
        self,
        settings: TrainingSettings | Mapping[str, Any] | None,
        changes: Mapping[str, Any],
        predict: bool,
        network: Module | None,
        threads: int,
        search: bool,
        waits: bool = False,
    ) -> Work:
        """Return the work of a training.

        If it ``waits``, a shown run with predictions stays until the new one has predicted the same images.
        """
        given = TrainingSettings(**settings) if isinstance(settings, Mapping) else settings
        task = self._task(given, changes, threads, network, search)
        self._background_training.cancel()
        self.training_curve = LearningCurve()
        is_automatic, shown = self._shown.is_automatic, self.current_run
        predicted = [] if is_automatic or not waits else self.runs.predicted_images(self.images)

        def work(stop: Stop) -> Iterator[object]:
            problem: SvetlanaError | None = None
            for event in train_run(task, stop):
                if isinstance(event, RunScored) and is_automatic and not event.is_provisional:
                    yield from self._predict_better(event.run, stop)
                elif isinstance(event, Scoring):
                    event.may_replace = is_automatic and NETWORK in event.run.missing_scores
                if not isinstance(event, FirstRun | Run | RunUnsaved):
                    yield event
                    continue
                yield event.run if isinstance(event, FirstRun) else event, network, is_automatic or bool(predicted)
                names = list(task.pairs) if predict else predicted
                if names and isinstance(event, Run):
                    count = task.settings.threads or threads
                    try:
                        yield from predict_images(self._prediction_task(names, event, count, network), stop)
                        if predicted and not stop():
                            yield RunPredicted(event, shown)
                    except SvetlanaError as error:
                        problem = error
            if problem is not None:  # after the score
                raise problem

        return work

    def _background_task(self) -> TrainingTask:
        """Return the inputs of a training in the background, with one thread.

        No forest is stored first, since the live classifier is shown meanwhile.
        """
        return replace(self._task(self.settings.changed(threads=1), {}, 1), stores_first=False)

    def _show_live(self, state: LiveState) -> None:
        """Show the live state, and train a network once labels have grown enough."""
        self.live_state = state
        self._shown.follow_live()
        may_train = self.live.is_following and self.live.trains and self.job is None and self._folder.writable
        if may_train and state.stage == "average" and self._shown.is_automatic:
            self._background_training.consider(state.labels)

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
            names,
            run,
            threads,
            images.pair,
            images.objects,
            images.image_fingerprint,
            images.has_same_pixels,
            images.pixel_hash,
            images.mask_numbers(),
            network,
            encoders=self.features.encoder_sources(TrainingSettings(**run.settings)),
            cached=self.features.cached,
        )

    def _export(self, folder: str | Path, formats: Sequence[str]) -> Export:
        names = list(self.images)
        output = OutputFolder(_check_path(folder, "project.export"), self.path, names, self.images.files())
        return Export(lambda: self._snapshot(names), output, formats)

    def _export_work(self, folder: str | Path, formats: Sequence[str]) -> Work:
        export = self._export(folder, formats)
        self.last_export = None

        def work(stop: Stop) -> Iterator[object]:
            files: list[Path] = []
            if self.current_run not in ("", LIVE):  # the counts need held-out predictions
                yield from self._scorings.work(self.current_run, stop, (NETWORK,))
            yield Progress(0, 1, "exporting")
            for file in export.files(stop):
                files.append(file)
                yield Progress(export.done, 1, f"{file.name} is written")
            yield ExportFinished(export.folder, tuple(files), export.stopped)

        return work


def _check_path(path: object, call: str) -> Path:
    if not isinstance(path, str | PathLike):
        raise ProjectError(f'Expected a path, got {path!r}. Pass it as text: {call}("cells.svetlana").')
    return Path(path)
