"""How good a run is, as far as it is known: one report that names its source.

What a run predicted of the test set beside what people said of it, once they have said enough.

The runs of a project side by side: how each was trained, and what is known of it.

An evaluation as text, as HTML at the end of a notebook cell, and as JSON.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from svetlana_jupyter.core.features.catalog import CUES
from svetlana_jupyter.core.groups import name_groups
from svetlana_jupyter.core.predictions import merge_predictions
from svetlana_jupyter.core.settings import parse_allowed_cues
from svetlana_jupyter.core.stats.calibration import NO_CALIBRATION, Calibration, Reliability, class_ids, reliability
from svetlana_jupyter.core.stats.metrics import Scores, score
from svetlana_jupyter.project.runs import Run, uncalibrated_column
from svetlana_jupyter.project.test_set import FEWEST, MIN_ANNOTATED_FRACTION
from svetlana_jupyter.project.training_job import digest, select_training_objects

if TYPE_CHECKING:
    from svetlana_jupyter.core.stats.metrics import Estimate
    from svetlana_jupyter.project.project import Results


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
    answered = known["action"].isin(["label", "ambiguous", "bad_segmentation"]).sum()
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


NAMED = 5  # images in a sentence
SHOWN = 30  # rows of a table in HTML, which all are in the tables themselves
_CELL = "padding:1px 0 1px 12px;white-space:nowrap"
_MUTED = "color:var(--jp-ui-font-color2,#666)"


def report_text(report: Evaluation) -> str:
    """Return the report in a few lines."""
    return "\n".join(_lines(report))


def report_html(report: Evaluation) -> str:
    """Return the report as quiet tables; all names are escaped."""
    lines = "".join(f"<div>{escape(line)}</div>" for line in _lines(report)[: 1 if report.network else None])
    if report.network is None:
        return lines
    parts = [
        _table(["", "share", "95 % interval"], _overall(report.network)),
        _table(["class", "objects", "recall", "precision", "F1"], _by_class(report.network)),
        _table(["truth \\ predicted", *report.network.confusion.columns], _confusion(report.network)),
        _table(["group", "objects", "accuracy", "balanced"], _by_group(report.network)),
    ]
    flex = "display:flex;flex-wrap:wrap;align-items:flex-start;gap:6px 24px;margin:6px 0 6px -12px"
    notes = "".join(f'<div style="{_MUTED}">{escape(line)}</div>' for line in report_notes(report))
    return f'{lines}<div style="{flex}">{"".join(parts)}</div>{notes}'


def report_json(report: Evaluation) -> str:
    """Return everything in the report as indented JSON."""
    return json.dumps(_plain(report), indent=2, ensure_ascii=False, allow_nan=False)


def _lines(report: Evaluation) -> list[str]:
    first = [f"Run {report.run}, {report.source}. {report.text}"]
    if report.network is None:
        return first + report_notes(report)
    classes = [
        f"  {name}: recall {recall}, precision {precision} ({n} objects)"
        for name, n, recall, precision, _ in _by_class(report.network)
    ]
    others = f"Balanced accuracy {report.network.balanced_accuracy}, macro F1 {report.network.macro_f1}."
    return [*first, others, *classes, *report_notes(report)]


def report_notes(report: Evaluation) -> list[str]:
    """Return what must be known to read the figures."""
    notes = []
    if report.network is not None:
        if report.network.groups == 1:
            notes.append(
                f"Intervals are over {report.over}, since all are of one group: they do not tell how others would do."
            )
        else:
            notes.append(f"Intervals are over {report.over}.")
    if report.reliability is not None and report.uncalibrated is not None:
        notes.append(_calibration(report))
    aside = [f"{count:,} as {mark}" for mark, count in report.left_out.items() if count]
    if aside:
        notes.append(f"Set aside and not scored: {', '.join(aside)}.")
    if report.outdated:
        notes.append("There are other annotations now than this run learned from.")
    if not report.images.empty and report.images["warn"].any():
        notes.append(outlying_images(report.images))
    return notes


def outlying_images(images: pd.DataFrame) -> str:
    """Say which images look unlike those annotated, as `core.novelty.compare_images` found it."""
    told = images[images["warn"]].sort_values("unlike", ascending=False)["unlike"]
    names = [f"{image} ({share:.0%} of its objects)" for image, share in told.head(NAMED).items()]
    more = f" and {len(told) - NAMED} more" if len(told) > NAMED else ""
    verb = "An image looks" if len(told) == 1 else f"{len(told)} images look"
    return f"{verb} unlike those annotated: {', '.join(names)}{more}. Annotate some objects there before trusting it."


def _calibration(report: Evaluation) -> str:
    assert report.reliability is not None and report.uncalibrated is not None
    after, before = report.reliability, report.uncalibrated
    expected_by_chance = f"(exact ones would show {after.expected_by_chance:.1%} with so few objects)"
    if report.calibration.is_identity:
        return (
            f"Probabilities are off by {after.error:.1%} on average {expected_by_chance}, as the classifier gives them."
        )
    how = f"temperature {report.calibration.temperature:.2g}" + (" and bias" if report.calibration.bias else "")
    return (
        f"Probabilities are calibrated ({how}): on objects that this was not fitted on they are off by "
        f"{after.error:.1%} on average {expected_by_chance}, {before.error:.1%} before."
    )


def _overall(scores: Scores) -> list[tuple[str, str, str]]:
    named = {"accuracy": scores.accuracy, "balanced accuracy": scores.balanced_accuracy, "macro F1": scores.macro_f1}
    return [(name, _percent(found.value), _interval(found)) for name, found in named.items()]


def _interval(found: Estimate) -> str:
    return f"{_percent(found.low)} to {_percent(found.high)}"


def _by_class(scores: Scores) -> list[tuple[str, str, str, str, str]]:
    def share(row: pd.Series, name: str) -> str:
        if math.isnan(row[name]):
            return "–"
        return f"{_percent(row[name])} ({_percent(row[f'{name}_low'])} to {_percent(row[f'{name}_high'])})"

    return [
        (str(name), f"{int(row['n']):,}", share(row, "recall"), share(row, "precision"), _percent(row["f1"]))
        for name, row in scores.per_class.iterrows()
    ]


def _confusion(scores: Scores) -> list[tuple[str, ...]]:
    return [(str(name), *(f"{count:,}" for count in row)) for name, row in scores.confusion.iterrows()]


def _by_group(scores: Scores) -> list[tuple[str, str, str, str]]:
    rows = scores.by_group.sort_values("accuracy", kind="stable")  # the worst is what one looks for
    found = [
        (str(name), f"{int(row['n']):,}", _percent(row["accuracy"]), _percent(row["balanced_accuracy"]))
        for name, row in rows.head(SHOWN).iterrows()
    ]
    more = len(rows) - SHOWN
    return [*found, (f"and {more} more", "", "", "")] if more > 0 else found


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1%}"


def _table(head: Sequence[object], rows: Iterable[Sequence[str]]) -> str:
    def row(cells: Iterable[object], tag: str, style: str = "") -> str:
        sides = itertools.chain(["left"], itertools.repeat("right"))
        found = (
            f'<{tag} style="{_CELL};text-align:{side}{style}">{escape(str(cell))}</{tag}>'
            for cell, side in zip(cells, sides)
        )
        return f"<tr>{''.join(found)}</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    heads = row(head, "th", f";{_MUTED};font-weight:normal")
    return (
        f'<table style="border-collapse:collapse;font-size:inherit"><thead>{heads}</thead><tbody>{body}</tbody></table>'
    )


def _plain(value: Any) -> Any:
    """Return a value as JSON knows it: tables as lists of rows, what is not a number as null."""
    if isinstance(value, pd.DataFrame):
        value = value.reset_index().to_dict("records") if value.index.name else value.to_dict("records")
    if isinstance(value, dict):
        return {str(key): _plain(some) for key, some in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(some) for some in value]
    if hasattr(value, "__dataclass_fields__"):
        return _plain(vars(value))
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
    return {mark: marks[mark] for mark in ("ambiguous", "bad_segmentation")}


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


def compare_runs(project: Results) -> pd.DataFrame:
    """Return one row a run, the latest first; see `Results.compare_runs`."""
    rows = []
    for run in reversed(project.runs):
        known = scored(project, run)
        accuracy = known.network.accuracy if known.network is not None else None
        rows.append(
            {
                "run": run.name,
                "finished": pd.Timestamp(run.finished),
                "preset": run.settings["preset"],
                "architecture": run.settings["architecture"],
                "may_use": _listed(parse_allowed_cues(run.settings.get("may_use", CUES))),
                "labels": sum(run.labels.values()),
                "source": known.source,
                "accuracy": accuracy.value if accuracy is not None else math.nan,
                "low": accuracy.low if accuracy is not None else math.nan,
                "high": accuracy.high if accuracy is not None else math.nan,
                "balanced": known.network.balanced_accuracy.value if known.network is not None else math.nan,
                "forest": known.forest.accuracy.value if known.forest is not None else math.nan,
                "epochs": len(run.history),
                "stopped": run.stopped,
                "seconds": run.seconds,
                "annotations": run.annotations,
                "current": run.name == project.current_run,
            }
        )
    return pd.DataFrame(rows, columns=_COLUMNS).set_index("run")


def _listed(may_use: Collection[str]) -> str:
    """Return what a classifier may use as words."""
    return "everything" if set(may_use) == set(CUES) else ", ".join(sorted(may_use)) or "nothing but shape"


_COLUMNS = [
    *(
        "run",
        "finished",
        "preset",
        "architecture",
        "may_use",
        "labels",
        "source",
        "accuracy",
        "low",
        "high",
        "balanced",
    ),
    *("forest", "epochs", "stopped", "seconds", "annotations", "current"),
]
