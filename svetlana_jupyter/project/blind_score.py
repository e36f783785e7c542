"""What a run predicted of the test set beside what people said of it, once they have said enough."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from svetlana_jupyter.core.grouping import name_groups
from svetlana_jupyter.core.results import merge_predictions
from svetlana_jupyter.project.runs import uncalibrated_column
from svetlana_jupyter.project.testset import FEWEST, MIN_ANNOTATED_FRACTION

if TYPE_CHECKING:
    from svetlana_jupyter.project.results import Results
    from svetlana_jupyter.project.runs import Run


def test_set_predictions(project: Results, run: Run) -> tuple[pd.DataFrame | None, str]:
    """Return truth and prediction of the test set, and a sentence on it.

    Returns
    -------
    DataFrame or None
        As `Run.held_out`, with ``stands_for`` (how many objects each stands for); None while too few are annotated, or
        before they are predicted.
    str
        What the objects are, or why there is no table; "" without a test set.
    """
    known = project.test_set()
    if known.empty:
        return None, ""
    answered = known["action"].isin(["label", "ambiguous", "bad"]).sum()
    truth = known[known["action"] == "label"]
    if answered < MIN_ANNOTATED_FRACTION * len(known) or len(truth) < FEWEST:
        needed = max(FEWEST, math.ceil(MIN_ANNOTATED_FRACTION * len(known)))
        return None, (
            f"The test set counts once {needed} of its {len(known)} objects are annotated; {answered} are "
            '(project.queue("test") brings the others).'
        )
    tables = []
    images = truth.index.unique("image")
    for image in images:
        predicted = project._all_probabilities(run, image)
        objects = truth.xs(image, level="image").index
        if not objects.isin(predicted.index).all():
            return None, "The test set is annotated: predict all images to have this run scored on it."
        raw = run.read_predictions(image)
        assert raw is not None
        raw = merge_predictions(raw, project.classes.merged).loc[objects].filter(regex="^p_")
        entry = project.images[image]
        index, by = project.objects(image), run.settings.get("hold_out_by")
        groups = name_groups(image, entry.groups, index, entry.shape, len(images) == 1, by)
        table = predicted.loc[objects].drop(columns="probability").join(raw.rename(columns=uncalibrated_column))
        tables.append(table.assign(image=image, group=groups.loc[objects]).reset_index())
    found = pd.concat(tables, ignore_index=True)
    said = truth.loc[pd.MultiIndex.from_frame(found[["image", "object"]])]
    ids = {name: id for id, name in zip(project.classes.ids, project.classes.names)}
    found["truth"] = said["class"].map(ids).to_numpy()
    found["stands_for"] = said["stands_for"].to_numpy()
    return found, (
        f"Measured on {len(found)} objects that were drawn at random, kept apart from all training, and annotated "
        "without seeing their predictions."
    )
