"""What the runs of a project found: tables, maps, counts, scores and explanations, of the run that was chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import xarray as xr
from traitlets import Int, Unicode

from svetlana_jupyter.core.annotations import ObjectId
from svetlana_jupyter.core.queue import uncertainty_order
from svetlana_jupyter.core.results import class_map, merge_predictions, object_table, probability_map
from svetlana_jupyter.core.tables import TableSource
from svetlana_jupyter.core.unlike import HeldOutGroups, compare_images
from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.blind import Blind
from svetlana_jupyter.project.catalog import Source
from svetlana_jupyter.project.comparison import compare_runs
from svetlana_jupyter.project.counting import counts
from svetlana_jupyter.project.evaluation import Evaluation, evaluate
from svetlana_jupyter.project.queues import Queue
from svetlana_jupyter.project.runs import Run, read_runs

if TYPE_CHECKING:
    from torch.nn import Module


class Results(Blind):
    """A dataset with its finished runs and all that can be read off them.

    Attributes
    ----------
    predictions_version, runs_version : int
        Count up with every change, for panels to observe.
    current_run : str
        The name of the run that everything shows; "" before the first training.
    """

    predictions_version = Int()
    runs_version = Int()
    current_run = Unicode()

    def __init__(self, path: str | Path, classes: Iterable[str] | None = None, annotator: str | None = None) -> None:
        super().__init__(path, classes, annotator)
        self._predicted: dict[tuple[str, str], tuple[Mapping[int, int], int, pd.DataFrame]] = {}
        self._shown: dict[tuple[str, str], tuple[pd.DataFrame, frozenset[int], pd.DataFrame]] = {}
        self._runs = read_runs(self._store.runs_folder)
        self._networks: dict[str, Module] = {}  # of runs whose network was given as an object in this session
        chosen = str(self._store.read_document().get("current_run", ""))
        self.current_run = chosen if chosen in self._runs else max(self._runs, default="")

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
            Indexed by object: ``predicted`` (class id), ``probability``, one ``p_<class id>`` each, calibrated where
            the run has a calibration; empty before the image was predicted. Objects of the test set are left out
            before they are annotated.
        """
        self._catalog.entry(image)
        if not (run or self.current_run):
            return _NOTHING_PREDICTED
        table, hidden = self._all_probabilities(self.run(run), image), self.hidden(image)
        if not hidden:
            return table
        seen = run or self.current_run, image
        if seen not in self._shown or self._shown[seen][0] is not table or self._shown[seen][1] != hidden:
            self._shown[seen] = table, hidden, table.drop(index=list(hidden), errors="ignore")
        return self._shown[seen][2]

    def _all_probabilities(self, run: Run, image: str) -> pd.DataFrame:
        """Return what `probabilities` does, with what is hidden from people."""
        seen, merged, mask = (run.name, image), self.classes.merged, self._catalog.entry(image).mask_number
        known = self._predicted.get(seen)
        if known is None or known[:2] != (merged, mask):
            table = run.read_predictions(image)
            if table is None or table.attrs.get("mask", 0) != mask:  # its objects are those of another mask
                table = _NOTHING_PREDICTED
            table = merge_predictions(run.calibration.apply(table), merged)
            self._predicted[seen] = known = merged, mask, table
        return known[2]

    def predictions(self, images: Iterable[str] | None = None) -> pd.DataFrame:
        """Return one row for each object, as `core.results.object_table` describes it."""
        tables = [self._object_table(name) for name in self._chosen(images)]
        if not tables:
            raise ProjectError("the project has no images yet; add some with project.add_images(...).")
        return pd.concat(tables)

    def failed(self, images: Iterable[str] | None = None, run: str | None = None) -> pd.DataFrame:
        """Return the objects that a run could not see, because their pixels do not decode.

        Returns
        -------
        DataFrame
            Indexed by ``(image, object)``: ``why``, a sentence. `predictions` shows them without a prediction;
            `predict` tries them again.
        """
        rows = [
            (name, int(object), str(why))
            for name in self._chosen(images)
            for object, why in self.run(run).predictions_attributes(name).get("failed", ())
        ]
        return pd.DataFrame(rows, columns=["image", "object", "why"]).set_index(["image", "object"])

    def class_map(self, image: str) -> xr.DataArray:
        """Return the class under each pixel of an image, lazily (`core.results.class_map`)."""
        return class_map(self.pair(image).mask, self._object_table(image).droplevel("image"), self.classes)

    def probability_map(self, image: str) -> xr.DataArray:
        """Return the probability of the predicted class under each pixel, lazily; NaN where there is none."""
        return probability_map(self.pair(image).mask, self._object_table(image).droplevel("image"))

    def counts(
        self,
        by: Sequence[str] | str = (),
        conditions: TableSource | None = None,
        *,
        exclude_border: bool = False,
        size: tuple[float | None, float | None] = (None, None),
        corrected: bool = False,
    ) -> pd.DataFrame:
        """Count the objects of each class, by image, grouping columns or conditions, with what was left out.

        Parameters
        ----------
        by : str or sequence of str
            "image", grouping columns or condition columns, for example ``["plate", "well"]`` or "dose"; all objects
            together by default.
        conditions : path or DataFrame, optional
            A CSV or table with one row a well (a plate and well, a patient, an image) and what was done to it
            (`core.conditions.join_conditions`). Conditions that are the same throughout a group stand beside it.
            Rows and images that find no partner are named in `status`; their conditions are missing.
        exclude_border : bool
            Whether to leave out objects that touch the border of their image.
        size : tuple of float or None
            Pixels (voxels) that an object must have at least, and at most: ``(50, None)`` leaves out small ones.
        corrected : bool
            Whether to add counts that are freed from the classifier's mistakes by those it made on the test set
            (`core.corrected`): annotated objects count as they are, the others as so many of each class as would be
            predicted like this. Each class is taken to be recognised as well in every group as in the test set.

        Returns
        -------
        DataFrame
            Tidy, one row a group and class: ``count``, ``total``, ``fraction`` with its 95 % interval over objects
            (``low``, ``high``), ``corrected`` with its own (``corrected_low``, ``corrected_high``) where it is asked
            for, and ``left_out`` by reason (`core.statistics.count_classes`).

        Raises
        ------
        ProjectError
            If counts are to be corrected and there is no test set, or it does not say enough.
        """
        return counts(self, by, conditions, exclude_border, size, corrected)

    def evaluate(self, run: str | None = None) -> Evaluation:
        """Return how good a run is, as far as it is known, with the source of the figure."""
        return evaluate(self, self.run(run))

    def compare_images(self, images: Iterable[str] | None = None, run: str | None = None) -> pd.DataFrame:
        """Return how much of each predicted image looks unlike all annotated objects (`core.novelty.compare_images`).

        Parameters
        ----------
        images : iterable of str, optional
            All by default.
        run : str, optional
            The current one by default.

        Returns
        -------
        DataFrame
            Indexed by image: ``asked`` (how many of its objects, at random), ``novelty`` (share of them; 5 % are
            expected), ``annotated``, ``p``, and ``warn``, whether the image as a whole looks unlike those annotated:
            then its predictions are not to be trusted before some of its objects are annotated too. Without rows where
            too little was annotated to tell.
        """
        chosen, wanted = self.run(run), self._chosen(images)
        counts = self.training_labels().groupby(level="image").size()
        annotated = {str(image): int(count) for image, count in counts.items()}
        entries = self.images
        if chosen.left_out is None:
            return compare_images(chosen.outlier_fractions({}), annotated, HeldOutGroups((), ()))
        # The annotated images say what is usual, whichever are asked for.
        masks = {name: entries[name].mask_number for name in dict.fromkeys([*wanted, *annotated])}
        found = compare_images(chosen.outlier_fractions(masks), annotated, chosen.left_out)
        return found[found.index.isin(wanted)]

    def compare_runs(self) -> pd.DataFrame:
        """Return the finished runs side by side, the latest first.

        Returns
        -------
        DataFrame
            Indexed by run: ``finished`` (UTC), ``recipe``, ``architecture``, ``may_use``, ``labels`` (annotations it
            learned from), ``source`` of its score, ``accuracy`` with its 95 % interval ``low`` and ``high``,
            ``balanced`` accuracy, accuracy of the ``forest`` tried beside it, ``epochs``, ``stopped``, ``seconds`` of
            training, a digest of the ``annotations`` (the same for the same ones), and whether it is ``current``.
            Scores of runs that learned from other annotations were measured on other objects.
        """
        return compare_runs(self)

    def explain(self, image: str, object: int, class_name: str | None = None) -> xr.Dataset:
        """Return the patch of an object as the classifier sees it, and where it looked (Grad-CAM).

        Parameters
        ----------
        class_name : str, optional
            The class whose evidence is asked for; the predicted one by default.
        """
        from svetlana_jupyter.learn.classifier import load_classifier
        from svetlana_jupyter.learn.explain import explain

        run = self.run()
        class_id = self.classes.by_name(class_name).id if class_name else None
        if object in self.hidden(image):
            raise ProjectError(
                f"object {object} of {image!r} belongs to the test set: annotate it first, so that nobody is led."
            )
        return explain(
            self.pair(image),
            self.objects(image),
            object,
            load_classifier(run.path, self._networks.get(run.name)),
            class_id,
        )

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
        kind : {"random", "uncertain", "near", "image", "test"}
            Uniformly at random; the least certain first; those nearest to the object ``near``, in its image; one image
            after the other; or those of the test set, which no other queue brings.
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
        found = uncertainty_order(table[table["annotation"].isna()])
        return [candidate.id for candidate, _ in zip(found, range(n))]

    def replace_mask(self, name: str, mask: Source) -> pd.DataFrame:
        report = super().replace_mask(name, mask)
        self.predictions_version += 1
        return report

    def draw_test_set(self, n: int, per: Sequence[str] | str | None = None, seed: int = 0) -> pd.DataFrame:
        drawn = super().draw_test_set(n, per, seed)
        self.predictions_version += 1
        return drawn

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

    def _make_current(self, run: Run) -> None:
        if self._store.writable:
            with self._store.edit_document() as document:
                document["current_run"] = run.name
        self.current_run = run.name
        self.predictions_version += 1


_NOTHING_PREDICTED = pd.DataFrame(
    {"predicted": pd.Series(dtype="int64"), "probability": pd.Series(dtype="float32")},
    index=pd.Index([], dtype="int64", name="object"),
)
