"""Accessors of a project: ``project.plot`` and ``project.background``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from svetlana_jupyter.core.classes import ClassScheme
from svetlana_jupyter.core.groups import unit_columns
from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.counts import list_columns
from svetlana_jupyter.project.jobs import JobRunner, Work, thread_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from matplotlib.figure import Figure
    from torch.nn import Module

    from svetlana_jupyter.core.io.table_files import TableSource
    from svetlana_jupyter.core.settings import TrainingSettings
    from svetlana_jupyter.core.stats.metrics import SizeLimits
    from svetlana_jupyter.project.evaluation import Evaluation
    from svetlana_jupyter.project.image_collection import ImageCollection
    from svetlana_jupyter.project.project_classes import ProjectClasses
    from svetlana_jupyter.project.runs import Run

Value = Literal["fraction", "count"]


@dataclass(frozen=True, eq=False, repr=False)
class Plots:
    """Figures of the results of a project."""

    _images: ImageCollection
    _classes: ProjectClasses
    _count: Callable[..., pd.DataFrame]
    _predictions: Callable[[], pd.DataFrame]
    _evaluate: Callable[[str | None], Evaluation]

    def counts(
        self,
        by: Sequence[str] | str = (),
        conditions: TableSource | None = None,
        *,
        replicates: Sequence[str] | str | None = None,
        classes: Sequence[str] | str | None = None,
        value: Value = "fraction",
        exclude_border: bool = False,
        size: SizeLimits = (None, None),
    ) -> Figure:
        """Plot the estimated class fractions or counts, with one point per replicate.

        The estimate of each group is shown with its 95 % confidence interval, if it has one (`Project.counts`).

        Parameters
        ----------
        by : str or sequence of str
            Groups along the horizontal axis, as for `Project.counts`: "dose", "image", ...
        conditions : path or DataFrame, optional
            As for `Project.counts`.
        replicates : str or sequence of str, optional
            Columns that define the replicates, which are the sampling units of the intervals: "well", "patient", ... By
            default the wells or patients of a group, or else its images.
        classes : str or sequence of str, optional
            Classes to show; all by default.
        value : {"fraction", "count"}
            Whether to plot the fraction or the estimated number of objects per replicate.
        exclude_border, size
            As for `Project.counts`.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from svetlana_jupyter.project.plots import plot_counts

        if value not in get_args(Value):
            raise InputError(f"Cannot plot value {value!r}. Use “fraction” or “count”.")
        by = list_columns(by)
        names = [classes] if isinstance(classes, str) else list(classes or self._classes.names)
        chosen = {self._classes.by_name(name).name for name in names}
        units = [replicates] if isinstance(replicates, str) else replicates and list(replicates)
        columns = dict.fromkeys(column for entry in self._images.values() for column in entry.groups)
        points = units or unit_columns(columns, by) or ["image"]
        points = [column for column in points if column not in by and "image" not in by]
        options: dict[str, Any] = {"exclude_border": exclude_border, "size": size}
        table, each = (self._count(keys, conditions, units, **options) for keys in (by, [*by, *points]))
        if not table["total"].any():
            raise ProjectError("There is nothing to count yet. Call project.predict(), or annotate objects.")
        shown = ClassScheme(tuple(info for info in self._classes if info.name in chosen))
        return plot_counts(table[table["class"].isin(chosen)], each, by, points, shown, value)

    def gallery(self, n: int = 8) -> Figure:
        """Plot the ``n`` most and the ``n`` least probable objects of each class.

        Annotated objects are left out. Each object is shown with its outline and probability.
        """
        from svetlana_jupyter.project.plots import plot_gallery

        if not isinstance(n, int) or n < 1:
            raise InputError(f"A gallery cannot show n={n} objects. Show at least one object per class.")
        table = self._predictions()
        table = table[table[["predicted", "class"]].notna().all(axis=1) & table["annotation"].isna()]
        if table.empty:
            raise ProjectError("There are no predictions yet. Call project.predict() first.")
        return plot_gallery(self._images.pair, self._images.objects, self._classes.scheme, table, n)

    def confusion(self, run: str | None = None) -> Figure:
        """Plot the confusion matrix of a run, as scored by `Project.evaluate`."""
        from svetlana_jupyter.project.plots import plot_confusion

        report = self._evaluate(run)
        if report.network is None:
            raise ProjectError(f"Run {report.run} has no accuracy estimate yet: {report.text}")
        title = f"run {report.run}, {report.source}: {report.network.accuracy.value:.1%} correct"
        return plot_confusion(report.network.confusion, self._classes.scheme, title)


@dataclass(frozen=True, eq=False, repr=False)
class BackgroundJobs:
    """Jobs in a background thread, so that the notebook stays responsive.

    Each method returns at once; ``project.job`` shows the progress and ``project.stop()`` stops the job.
    """

    _jobs: JobRunner
    _training: Callable[..., Work]
    _prediction: Callable[..., Work]
    _export: Callable[..., Work]
    _keep_live: Callable[[], Work]
    _score: Callable[[str | None], None]
    _is_scoring: Callable[[Run], bool]

    def train(
        self,
        settings: TrainingSettings | Mapping[str, Any] | None = None,
        *,
        predict: bool = False,
        search: bool = False,
        network: Module | None = None,
        **changes: Any,
    ) -> None:
        """Train a classifier in the background, as `Project.train` does.

        ``project.training_curve`` is the learning curve; ``project.current_run`` changes when the run is finished. A
        shown run with predictions stays until the new run has predicted the same images.
        """
        arguments = settings, changes, predict, network, thread_count("panel"), search
        self._jobs.start("training", self._training(*arguments, waits=True))

    def predict(self, images: Iterable[str] | None = None, run: str | None = None) -> None:
        """Classify the objects of images in the background, as `Project.predict` does."""
        self._jobs.start("prediction", self._prediction(images, run, thread_count("panel")))

    def score(self, run: str | None = None) -> None:
        """Compute the missing scores of a run, such as after `Project.stop` or a restart.

        ``project.scoring`` shows the progress; `Project.evaluate` waits for the scores.
        """
        self._score(run)

    def is_scoring(self, run: Run) -> bool:
        """Return whether missing scores of a run are being computed."""
        return self._is_scoring(run)

    def export(self, folder: str | Path, formats: Sequence[str] = ("csv",)) -> None:
        """Export the results in the background, as `Project.export` does.

        ``project.last_export`` lists the files.
        """
        self._jobs.start("export", self._export(folder, formats))

    def key_pressed(self) -> None:
        """Let background work pause for a moment, because a user types."""
        self._jobs.lane.typing.key_pressed()

    def keep_live(self) -> None:
        """Store the live predictions as a run in the background, as `Live.keep` does."""
        self._jobs.start("live update", self._keep_live())
