"""Counts of a project corrected by its test set, the only objects of which both prediction and truth are unbiased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from svetlana_jupyter.core.corrected import ConfusionRates, correct, estimate_confusion_rates
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.blind_score import test_set_predictions
from svetlana_jupyter.project.testset import FEWEST

if TYPE_CHECKING:
    from svetlana_jupyter.project.results import Results

CORRECTED_COLUMNS = ("corrected", "corrected_low", "corrected_high")


def corrected_counts(project: Results, counted: pd.DataFrame, by: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """Return how many objects of each class there are: those annotated, and those predicted as the test set corrects.

    Parameters
    ----------
    counted : DataFrame
        The objects that are counted, with ``image``, ``object``, ``class``, ``annotation`` and the columns ``by``.

    Returns
    -------
    DataFrame
        The columns ``by``, ``class`` and `CORRECTED_COLUMNS`, one row a group and class.
    str
        What is to be said of classes that the test set has no object of.

    Raises
    ------
    ProjectError
        If there is no test set, or it does not say enough.
    """
    found, says = _recognition(project, counted)
    names = list(project.classes.names)
    rows = []
    for key, group in counted.groupby(list(by), observed=True, dropna=False) if by else [((), counted)]:
        said = group["annotation"].notna()
        certain, guessed = (
            group["class"][which].value_counts().reindex(names, fill_value=0).to_numpy(np.int64)
            for which in (said, ~said)
        )
        bounds = zip(*(certain + part for part in correct(found, guessed)))
        rows += [(*key, name, *values) for name, values in zip(names, bounds)]
    return pd.DataFrame(rows, columns=[*by, "class", *CORRECTED_COLUMNS]), says


def _recognition(project: Results, counted: pd.DataFrame) -> tuple[ConfusionRates, str]:
    """Learn how the classes are recognised from what of the test set is counted."""
    table, says = test_set_predictions(project, project.run())
    if table is None:
        raise ProjectError(
            f"Counts cannot be corrected yet. {says}"
            if says
            else "Counts are corrected by a test set, and there is none: draw one with project.draw_test_set(100) and "
            'annotate it (project.queue("test") brings it).'
        )
    ids = pd.MultiIndex.from_frame(counted[["image", "object"]])
    table = table[pd.MultiIndex.from_frame(table[["image", "object"]]).isin(ids)]
    if len(table) < FEWEST:
        raise ProjectError(
            f"Counts cannot be corrected: only {len(table)} objects of the test set are among those counted, {FEWEST} "
            "are needed."
        )
    columns = table["truth"], table["predicted"], list(project.classes.ids), table["group"], table["stands_for"]
    found = estimate_confusion_rates(*columns)
    if not found.is_invertible:
        raise ProjectError(
            "Counts cannot be corrected: on the test set, objects of different classes are predicted alike too often. "
            "Annotate more, train again, and predict."
        )
    missing = [name for name, known in zip(project.classes.names, found.known) if not known]
    return found, f"The test set has no object of {', '.join(missing)}: taken as always recognised." if missing else ""
