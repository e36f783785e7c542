"""Class fractions of groups of objects, estimated from the predictions of a run.

The estimate needs labels whose objects were drawn at random, together with predictions of a classifier that was not
trained on them: for labels that the run was trained on, the cross-validated predictions; for all others, such as the
test set, the predictions of the run. All probabilities are those before calibration, since the estimate has a
correction of its own (`core.stats.fractions`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from svetlana_jupyter.core.io.table_files import format_list
from svetlana_jupyter.core.predictions import merge_predictions
from svetlana_jupyter.core.stats.calibration import class_ids
from svetlana_jupyter.core.stats.fractions import MIN_LABELS, CountedObjects, DrawnLabels, FractionEstimator, Fractions
from svetlana_jupyter.project.runs import NETWORK

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from svetlana_jupyter.core.annotations import ObjectId
    from svetlana_jupyter.core.classes import ClassScheme
    from svetlana_jupyter.project.runs import Run

NO_LABELS = "No object is labeled with this class, and the run does not predict it."
UNKNOWN_CLASS = "No interval: the run does not know classes that are labeled"
DRAW_CALLS = 'project.queue("random"), or of a test set from project.test_set.draw(100)'


class ClassFractions:
    """Estimator of class fractions for the predictions of one run.

    Parameters
    ----------
    run : Run or None
    classes : ClassScheme
    drawn : Series of int
        Class ids of the labeled objects that were drawn at random, indexed by ``(image, object)``.
    test_set : collection of ObjectId
        Objects that no run is trained on.
    stratified : bool
        Whether the same number was drawn for the test set from each of several groups: it is no random sample of all.
    predicted : mapping of image name to DataFrame
        Predictions of the run before calibration (`RunStore.probabilities`).
    masks : mapping of image name to int
        Number of the current mask of each image.
    outdated : collection of str
        Images that have changed since they were predicted.
    """

    def __init__(
        self,
        run: Run | None,
        classes: ClassScheme,
        drawn: pd.Series[int],
        test_set: Collection[ObjectId],
        stratified: bool,
        predicted: Mapping[str, pd.DataFrame],
        masks: Mapping[str, int],
        outdated: Collection[str] = (),
    ) -> None:
        self._classes, self._predicted, self.outdated = classes, predicted, frozenset(outdated)
        self._run, self._n_drawn, self._test_set = run, len(drawn), test_set
        self._sampled = drawn.index[~drawn.index.isin(list(test_set))] if stratified else drawn.index
        p = np.full((len(drawn), len(classes)), np.nan)
        if run is not None:
            has_held_out, is_unseen = _usable_predictions(run, drawn.index, test_set, masks)
            held_out = _cross_validated(run, classes).reindex(drawn.index[has_held_out])
            p[has_held_out] = _columns(held_out, classes)
            is_unseen &= np.isnan(p).any(axis=1)
            p[is_unseen] = self._probabilities(drawn.index[is_unseen].to_frame(index=False))
        usable = ~np.isnan(p).any(axis=1)
        self._probability, self._truth = p[usable], pd.Index(classes.ids).get_indexer(drawn[usable])
        self._images = drawn.index[usable].get_level_values("image")
        self._estimators: dict[tuple[object, ...], FractionEstimator] = {}
        ids = {class_id for table in predicted.values() for class_id in class_ids(table)} or set(classes.ids)
        self._is_known = np.isin(classes.ids, list(ids))

    @property
    def hold_out_by(self) -> list[str] | None:
        """The columns of similar objects that the settings of the run name."""
        return self._run.settings.get("hold_out_by") if self._run else None

    def is_waiting(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Return which objects (n,) are in images without predictions.

        Objects of the test set, whose predictions are hidden until they are annotated, are not waiting.
        """
        predicted = [name for name, rows in self._predicted.items() if len(rows)]
        hidden = pd.MultiIndex.from_frame(table[["image", "object"]]).isin(list(self._test_set))
        return np.asarray(~table["image"].isin(predicted).to_numpy() & ~hidden)

    def explain(self, fractions: Fractions) -> list[str]:
        """Return the note of each class, with the call that leads to an interval."""
        too_few = self.missing_labels()
        if fractions.method == "predicted" and too_few:
            return [too_few] * len(fractions.note)
        has_call = np.isnan(fractions.low) & (fractions.method == "corrected") & (np.array(fractions.note) != NO_LABELS)
        return [
            f"{note} Label objects of {DRAW_CALLS}." if add else note for note, add in zip(fractions.note, has_call)
        ]

    def missing_labels(self) -> str:
        """Return a sentence about too few drawn labels; "" if there are enough."""
        need = f"an interval needs {MIN_LABELS} labels of objects drawn at random"
        n, usable = self._n_drawn, len(self._truth)
        if usable >= MIN_LABELS:
            return ""
        if n < MIN_LABELS or self._run is None:
            return f"No interval: {need}; there are {n}. Label objects of {DRAW_CALLS}."
        has = f"No interval: {need} with held-out predictions; run {self._run.name} has them for {usable} of {n}."
        if NETWORK in self._run.missing_scores:
            return f"{has} The run has them once it is scored: call project.evaluate() to score it now."
        if self._run.held_out() is None and self._run.note:
            return f"{has} {self._run.note} Label more objects, then call project.train() and project.predict()."
        return f"{has} Call project.train(), then project.predict()."

    def estimate(
        self, table: pd.DataFrame, groups: Sequence[NDArray[np.int64]], units: Mapping[str, str]
    ) -> list[Fractions]:
        """Estimate the class fractions of groups of objects.

        Parameters
        ----------
        table : DataFrame
            Objects with ``image``, ``object``, ``class`` and ``annotation`` (class names).
        groups : sequence of int64 arrays
            Positions in ``table`` of the counted objects of each group.
        units : mapping of image name to str
            The sampling unit of each image.

        Notes
        -----
        A class that the run does not know has probability 0 for all objects, which says nothing about its fraction.
        Without annotated objects it is left out. With some, only a new training allows an estimate.
        """
        p, unit = self._probabilities(table), table["image"].map(units).to_numpy(str)
        annotation = pd.Index(self._classes.names).get_indexer(pd.Index(table["annotation"]))
        # Annotated objects need no prediction; their images may not have been predicted.
        unpredicted = np.isnan(p).any(axis=1) & (annotation >= 0)
        p[unpredicted] = np.eye(p.shape[1])[annotation[unpredicted]]
        labels = DrawnLabels(self._probability, self._truth, self._images.map(units).to_numpy(str))
        is_labeled = np.isin(np.arange(p.shape[1]), [*self._truth, *annotation])
        chosen = np.flatnonzero(self._is_known | is_labeled)
        if unknown := [self._classes.names[place] for place in np.flatnonzero(is_labeled & ~self._is_known)]:
            labels = DrawnLabels(labels.probability[:0], labels.truth[:0], labels.unit[:0])
        key = (*units.values(), *chosen.tolist(), bool(unknown))
        if key not in self._estimators:
            truth = np.searchsorted(chosen, labels.truth)
            self._estimators[key] = FractionEstimator(DrawnLabels(labels.probability[:, chosen], truth, labels.unit))
        places = np.where(annotation < 0, -1, np.searchsorted(chosen, annotation))
        is_drawn = pd.MultiIndex.from_frame(table[["image", "object"]]).isin(self._sampled)
        objects = [CountedObjects(p[rows][:, chosen], places[rows], unit[rows], is_drawn[rows]) for rows in groups]
        estimates = [_with_all_classes(each, chosen, p.shape[1]) for each in self._estimators[key].estimate(objects)]
        note = f"{UNKNOWN_CLASS}: {format_list(unknown)}. Call project.train(), then project.predict()."
        return [
            each._replace(note=[note] * p.shape[1]) if unknown and each.method == "predicted" else each
            for each in estimates
        ]

    def _probabilities(self, objects: pd.DataFrame) -> NDArray[np.float64]:
        """Return the raw predictions (n, k) of objects; NaN without a prediction."""
        result = np.full((len(objects), len(self._classes)), np.nan)
        for image, rows in objects.reset_index(drop=True).groupby("image", sort=False)["object"]:
            result[rows.index] = _columns(self._predicted[str(image)].reindex(rows.to_numpy()), self._classes)
        return result


def _with_all_classes(fractions: Fractions, chosen: NDArray[np.int64], k: int) -> Fractions:
    """Add the classes that were left out of an estimate, without intervals."""
    values = np.full((3, k), np.nan)
    values[0] = np.nan if np.isnan(fractions.fraction).all() else 0.0
    values[:, chosen] = fractions[:3]
    notes = np.full(k, NO_LABELS, object)
    notes[chosen] = fractions.note
    return Fractions(values[0], values[1], values[2], fractions.method, notes.tolist())


def _columns(table: pd.DataFrame, classes: ClassScheme) -> NDArray[np.float64]:
    """Return the probabilities (n, k) of all classes; 0 for unknown classes."""
    p = table.reindex(columns=[f"p_{class_id}" for class_id in classes.ids]).to_numpy(np.float64)
    known = np.isin(classes.ids, class_ids(table))
    p[:, ~known] = np.where(np.isnan(p[:, known]).all(axis=1, keepdims=True), np.nan, 0.0)
    return np.asarray(p)


def _cross_validated(run: Run, classes: ClassScheme) -> pd.DataFrame:
    """Return the cross-validated probabilities of a run before calibration."""
    table = run.held_out()
    if table is None:
        return pd.DataFrame(index=pd.MultiIndex.from_arrays([[], []], names=["image", "object"]))
    prefix = "raw_" if class_ids(table, "raw_") else "p_"
    raw = table.filter(regex=f"^{prefix}").rename(columns=lambda column: column.replace(prefix, "p_", 1))
    merged = merge_predictions(raw, classes.merged)
    return merged.set_axis(pd.MultiIndex.from_frame(table[["image", "object"]]))


def _usable_predictions(
    run: Run, index: pd.Index, test_set: Collection[ObjectId], masks: Mapping[str, int]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return for which labels (n,) the predictions of a run are held out.

    The first result is for the cross-validated predictions, the second for the predictions of the run itself.

    The own predictions may be used for objects that the run was not trained on. Cross-validated ones may be used unless
    the training started from another run of the project, which may have been trained on all labels.
    """
    in_test_set = index.isin(list(test_set)) if len(test_set) else np.zeros(len(index), bool)
    trained, start = run.training_labels(), run.settings.get("start_from")
    continued = start is not None and (run.path.parent / str(start)).exists()
    if trained is None:  # version 0.1.0 did not store the labels
        return np.full(len(index), not continued), in_test_set
    replaced = {image for image, mask in zip(trained["image"], trained["mask"]) if masks.get(image) != mask}
    is_current = ~index.isin(replaced, level="image")
    is_trained = index.isin(pd.MultiIndex.from_frame(trained[["image", "object"]]))
    return is_current & (not continued), in_test_set | (is_current & ~is_trained & (not continued))
