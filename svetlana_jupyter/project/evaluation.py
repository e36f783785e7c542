"""How good a run is, as far as it is known: one report that names its source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from svetlana_jupyter.core.calibration import NO_CALIBRATION, Calibration, Reliability, class_ids, reliability
from svetlana_jupyter.core.results import merge_predictions
from svetlana_jupyter.core.scores import Scores, score
from svetlana_jupyter.project.blind_score import test_set_predictions
from svetlana_jupyter.project.evaluation_report import report_html, report_json, report_text
from svetlana_jupyter.project.examples import select_training_objects
from svetlana_jupyter.project.runs import Run
from svetlana_jupyter.project.training import digest

if TYPE_CHECKING:
    from svetlana_jupyter.project.results import Results


@dataclass(frozen=True)
class Evaluation:
    """What is known of a run's accuracy; printed as text, and as tables at the end of a notebook cell.

    Attributes
    ----------
    run : str
    source : str
        "blind test set", "cross-validation", or "not known yet".
    text : str
        The report in a sentence or two.
    network, forest : Scores or None
        Of the run's own classifier, and of the forest tried beside it on the same annotations: accuracy, balanced
        accuracy and macro F1 with their intervals, tables by class, by group, and of confusions.
    over : str
        What the intervals are over: "12 groups (plate, well)", "16 regions of one image", "60 single objects".
    reliability, uncalibrated : Reliability or None
        How far the probabilities that prediction gives are from the shares that are right, and those that the
        classifier gave before they were calibrated on other objects.
    calibration : Calibration
    left_out : mapping of str to int
        How many objects are not scored since they are set aside, by mark.
    outdated : bool
        Whether there are other annotations now than the run learned from.
    images : DataFrame
        Which images look unlike those annotated, as `Project.compare_images` says it.
    warning : str
        That augmentation destroys the classes, or that they cannot be told apart; "" where nothing speaks for it.
    """

    run: str
    source: str
    text: str
    network: Scores | None = None
    forest: Scores | None = None
    over: str = ""
    reliability: Reliability | None = None
    uncalibrated: Reliability | None = None
    calibration: Calibration = NO_CALIBRATION
    left_out: Mapping[str, int] = field(default_factory=dict)
    outdated: bool = False
    images: pd.DataFrame = field(default_factory=pd.DataFrame)
    warning: str = ""

    def __str__(self) -> str:
        return report_text(self)

    def _repr_html_(self) -> str:
        return report_html(self)

    def to_json(self) -> str:
        """Return the whole report as indented JSON; what is not known is null."""
        return report_json(self)


def evaluate(project: Results, run: Run) -> Evaluation:
    """Return all that is known of a run."""
    labels, _ = select_training_objects(project, run.settings.get("exclude_border", False), run.settings.get("size"))
    outdated = run.annotations != digest(labels["class_id"])
    found, images = scored(project, run), project.compare_images(run=run.name)
    text = f"{found.text} {run.warning}" if run.warning else found.text
    return replace(found, text=text, outdated=outdated, images=images, warning=run.warning)


def scored(project: Results, run: Run) -> Evaluation:
    """Score what was predicted of the test set once it is annotated, else of annotated objects that were held out."""
    stopped = " The training was stopped early." if run.stopped else ""
    blind, said = test_set_predictions(project, run)
    if blind is not None:
        aside = Counter(project.test_set()["action"])
        return _scored(project, run, "blind test set", {"network": blind}, f"{said}{stopped}", aside)
    said = f" {said}" if said else ""
    known = {name: run.held_out(name) for name in ("network", "forest")}
    tables = {name: _merged(table, project) for name, table in known.items() if table is not None}
    aside = Counter(project.mark_counts())
    if "network" not in tables:
        return Evaluation(run.name, "not known yet", f"{run.note}{stopped}{said}", left_out=_left_out(aside))
    found = _scored(project, run, "cross-validation", tables, f"{run.note}{stopped}", aside)
    if found.forest is not None and run.settings["architecture"] != "forest":
        said = f" A random forest on measured properties reaches {found.forest.accuracy.value:.1%} on the same.{said}"
    return replace(found, text=found.text + said)


def _scored(
    project: Results, run: Run, source: str, tables: Mapping[str, pd.DataFrame], note: str, aside: Counter[str]
) -> Evaluation:
    """Return the report of tables of truth and prediction, by architecture."""
    # A class that was added since the training is in nothing predicted, but may be in the truth.
    ids = dict.fromkeys([*run.classes, *(id for table in tables.values() for id in table["truth"].unique().tolist())])
    names = {project.classes.by_id(id).id: project.classes.by_id(id).name for id in ids}
    scores = {
        name: score(table["truth"], table["predicted"], names, table["group"], table.get("stands_for"))
        for name, table in tables.items()
    }
    table = tables["network"]
    right = (table["predicted"] == table["truth"]).to_numpy()
    return Evaluation(
        run=run.name,
        source=source,
        text=f"Accuracy {scores['network'].accuracy}. {note}",
        network=scores["network"],
        forest=scores.get("forest"),
        over=_over(project, table, run.settings.get("hold_out_by")),
        reliability=_reliability(table, "p_", right),
        uncalibrated=_reliability(table, "raw_", right),
        calibration=run.calibration,
        left_out=_left_out(aside),
    )


def _left_out(marks: Counter[str]) -> dict[str, int]:
    return {mark: marks[mark] for mark in ("ambiguous", "bad")}


def _merged(table: pd.DataFrame, project: Results) -> pd.DataFrame:
    """Return a held-out table in which merged classes are one."""
    merged = project.classes.merged
    if not merged or not class_ids(table):
        return table
    # What was given before calibration was given for the classes as they were.
    others = table.drop(columns=["predicted", *table.filter(regex="^(p|raw)_")])
    others["truth"] = others["truth"].replace(dict(merged))
    return others.join(merge_predictions(table, merged).drop(columns="probability", errors="ignore"))


def _reliability(table: pd.DataFrame, prefix: str, right: np.ndarray) -> Reliability | None:
    columns = [f"{prefix}{id}" for id in class_ids(table, prefix)]
    return reliability(table[columns].max(axis=1).to_numpy(float), right) if columns else None


def _over(project: Results, table: pd.DataFrame, by: Sequence[str] | None) -> str:
    """Say what the intervals are over."""
    groups, images = table["group"].nunique(), table["image"].unique()
    if groups == 1:
        return f"{len(table):,} single objects"
    if len(images) == 1:
        return f"{groups} regions of one image"
    entries = project.images
    columns = by or dict.fromkeys(column for image in images if image in entries for column in entries[image].groups)
    return f"{groups} groups ({', '.join(columns)})" if columns else f"{groups} images"
