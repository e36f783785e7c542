"""Accuracy report of a run, as text, HTML and JSON.

Accuracy is measured on the test set if it is annotated, otherwise by cross-validation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from svetlana_jupyter.core.groups import group_columns, name_groups
from svetlana_jupyter.core.io.table_files import format_list
from svetlana_jupyter.core.predictions import EXCLUDING_FLAGS, merge_predictions
from svetlana_jupyter.core.stats.calibration import NO_CALIBRATION, Calibration, Reliability, class_ids, reliability
from svetlana_jupyter.core.stats.metrics import Scores, score
from svetlana_jupyter.project.runs import Run, uncalibrated_column
from svetlana_jupyter.project.test_set import MIN_ANNOTATED, MIN_ANNOTATED_FRACTION

if TYPE_CHECKING:
    from svetlana_jupyter.core.annotations import ObjectId
    from svetlana_jupyter.core.classes import ClassScheme
    from svetlana_jupyter.project.image_entry import ImageEntry

TEST_SET, CROSS_VALIDATION, NO_SOURCE = "test set", "cross-validation", "no estimate yet"
IN_PROGRESS = "being scored"  # the source of a run that is scored in the background


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of a run, printed as text and shown as tables in a notebook.

    Attributes
    ----------
    run : str
    source : str
        "test set", "cross-validation", "no estimate yet", or "being scored".
    text : str
        The report in one or two sentences.
    network, forest : Scores or None
        Scores of the run's classifier, and of a random forest on the same annotations: accuracy, balanced accuracy
        and macro F1 with their intervals, tables per class and group, and the confusion matrix.
    interval_unit : str
        The units that are resampled for the intervals: "12 groups (plate, well)", "16 regions of one image",
        "60 single objects".
    reliability, uncalibrated : Reliability or None
        Calibration error of the predicted probabilities after and before calibration. The calibration was fitted to
        other objects.
    calibration : Calibration
    left_out : mapping of str to int
        Number of flagged objects, which are not scored, per flag.
    sampling : str
        A sentence if scored objects were not drawn at random; "" otherwise.
    outdated : bool
        Whether the annotations are known to have changed since the training.
    images : DataFrame
        Out-of-distribution test per image, see `Project.compare_images`; empty if it was not requested.
    warning : str
        Warning that augmentation destroys the differences between classes, or that the classes cannot be
        distinguished; "" otherwise.
    outdated_images : tuple of str
        Images of the test set that have changed since they were predicted.
    """

    run: str
    source: str
    text: str
    network: Scores | None = None
    forest: Scores | None = None
    interval_unit: str = ""
    reliability: Reliability | None = None
    uncalibrated: Reliability | None = None
    calibration: Calibration = NO_CALIBRATION
    left_out: Mapping[str, int] = field(default_factory=dict)
    sampling: str = ""
    outdated: bool = False
    images: pd.DataFrame = field(default_factory=pd.DataFrame)
    warning: str = ""
    outdated_images: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"Run {self.run}, {self.source}. {self.text}"]
        if self.network is not None:
            lines.append(f"Balanced accuracy {self.network.balanced_accuracy}, macro F1 {self.network.macro_f1}.")
            for name, n, recall, precision, _ in _class_rows(self.network):
                lines.append(f"  {name}: recall {recall}, precision {precision} ({n} objects)")
        return "\n".join(lines + report_notes(self))

    def _repr_html_(self) -> str:
        return report_html(self)

    def to_json(self) -> str:
        """Return the whole report as indented JSON; missing values are null."""
        return json.dumps(_to_plain(self), indent=2, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class EvaluationData:
    """Data of a project that the evaluation of a run reads.

    Attributes
    ----------
    classes : ClassScheme
    entries : mapping of image name to ImageEntry
    flags : mapping of str to int
        Number of flagged objects, per flag.
    test_set : DataFrame
        Objects and labels of the test set (`TestSet.table`).
    drawn : set of ObjectId
        The objects that were drawn at random.
    objects : callable
        Returns the object table of an image.
    probabilities : callable
        Returns the predictions of a run for an image, including hidden predictions.
    """

    classes: ClassScheme
    entries: Mapping[str, ImageEntry]
    flags: Mapping[str, int]
    test_set: pd.DataFrame
    drawn: set[ObjectId]
    objects: Callable[[str], pd.DataFrame]
    probabilities: Callable[[Run, str], pd.DataFrame]


def score_run(run: Run, data: EvaluationData) -> Evaluation:
    """Score a run on the test set if it is annotated, otherwise by cross-validation."""
    table, remark = test_set_predictions(run, data)
    flags: Mapping[str, int] | pd.Series[int] = data.flags
    if table is not None:
        source, note, remark, forest, flags = TEST_SET, remark, "", None, data.test_set["action"].value_counts()
    else:
        source, note = CROSS_VALIDATION, run.note
        table, forest = (merge_held_out(run.held_out(name), data.classes) for name in ("network", "forest"))
    note += " The training was stopped early." * run.stopped
    left_out = {flag: int(flags.get(flag, 0)) for flag in EXCLUDING_FLAGS}
    warning = f" {run.warning}" if run.warning else ""
    if table is None:
        text = f"{note} {remark}".rstrip() + warning
        return Evaluation(run.name, NO_SOURCE, text, left_out=left_out, warning=run.warning)
    tables = {"network": table} | ({} if forest is None else {"forest": forest})
    # A class that was added after the training is never predicted, but test objects may be labeled with it.
    ids = [*run.classes, *(code for one in tables.values() for code in one["truth"].unique())]
    names = {info.id: info.name for info in map(data.classes.by_id, map(int, dict.fromkeys(ids)))}
    scores = {
        name: score(one["truth"], one["predicted"], names, one["group"], one.get("stands_for"))
        for name, one in tables.items()
    }
    note = f"Accuracy {scores['network'].accuracy}. {note}"
    if forest is not None and run.settings["architecture"] != "forest":
        accuracy = scores["forest"].accuracy.value
        note += f" A random forest on object measurements reaches {accuracy:.1%} on the same objects."
    return Evaluation(
        run=run.name,
        source=source,
        text=f"{note} {remark}".rstrip() + warning,
        network=scores["network"],
        forest=scores.get("forest"),
        interval_unit=_interval_unit(table, data.entries, run.settings.get("hold_out_by")),
        reliability=_reliability(table, "p_"),
        uncalibrated=_reliability(table, "raw_"),
        calibration=run.calibration,
        left_out=left_out,
        sampling=_describe_sampling(table, data.drawn) if source == CROSS_VALIDATION else "",
        warning=run.warning,
    )


def test_set_predictions(run: Run, data: EvaluationData) -> tuple[pd.DataFrame | None, str]:
    """Return the labels and predictions of the test set, and a message to the user.

    Returns
    -------
    table : DataFrame or None
        Table with the columns of `Run.held_out` and ``stands_for`` (the number of objects that each test object
        represents); None until enough objects are annotated and predicted.
    sentence : str
        A description of the test objects, or the reason why there is no table; "" without a test set.
    """
    known = data.test_set
    if known.empty:
        return None, ""
    answered = known["action"].isin(["label", *EXCLUDING_FLAGS]).sum()
    labeled = known[known["action"] == "label"]
    # Scoring before most objects are annotated would favor objects that are easy to annotate.
    if answered < MIN_ANNOTATED_FRACTION * len(known) or len(labeled) < MIN_ANNOTATED:
        needed = max(MIN_ANNOTATED, math.ceil(MIN_ANNOTATED_FRACTION * len(known)))
        return None, (
            f"The test set is used once {needed} of its {len(known)} objects are annotated; {answered} are annotated "
            'so far. Annotate the others with project.queue("test").'
        )
    tables, images = [], labeled.index.unique("image")
    for image in images:
        rows, predicted = labeled.xs(image, level="image"), data.probabilities(run, image)
        if not rows.index.isin(predicted.index).all():
            return None, "The test set is annotated: predict all images to score this run on the test set."
        raw = run.read_predictions(image)
        assert raw is not None
        raw = merge_predictions(raw, data.classes.merged).loc[rows.index].filter(regex="^p_")
        entry, by = data.entries[image], run.settings.get("hold_out_by")
        groups = name_groups(image, entry.groups, data.objects(image), entry.shape, len(images) == 1, by)
        table = predicted.loc[rows.index].drop(columns="probability").join(raw.rename(columns=uncalibrated_column))
        truth = rows["class"].map(dict(zip(data.classes.names, data.classes.ids)))
        columns = {"image": image, "group": groups.loc[rows.index], "truth": truth, "stands_for": rows["stands_for"]}
        tables.append(table.assign(**columns).reset_index())
    table = pd.concat(tables, ignore_index=True)
    return table, (
        f"Measured on {len(table)} randomly drawn objects, excluded from training and annotated without seeing their "
        "predictions."
    )


def merge_held_out(table: pd.DataFrame | None, classes: ClassScheme) -> pd.DataFrame | None:
    """Return cross-validated predictions after merging classes."""
    if table is None or classes.merged.keys().isdisjoint(class_ids(table)):
        return table
    # Uncalibrated probabilities refer to the classes before merging, so they are dropped.
    others = table.drop(columns=["predicted", *table.filter(regex="^(p|raw)_")])
    others["truth"] = others["truth"].replace(dict(classes.merged))
    return others.join(merge_predictions(table, classes.merged).drop(columns="probability", errors="ignore"))


def _describe_sampling(table: pd.DataFrame, drawn: set[ObjectId]) -> str:
    """Return a sentence if scored objects were not drawn at random; "" otherwise."""
    n = sum(each in drawn for each in zip(table["image"], table["object"].tolist()))
    if n == len(table):
        return ""
    how_many = f"Only {n} of the {len(table)} scored objects were" if n else "The scored objects were not"
    return (
        f"{how_many} drawn at random, so the accuracy on other objects may differ. Draw a test set with "
        'project.test_set.draw(100), or label objects of project.queue("random").'
    )


def _reliability(table: pd.DataFrame, prefix: str) -> Reliability | None:
    columns = [f"{prefix}{class_id}" for class_id in class_ids(table, prefix)]
    correct = (table["predicted"] == table["truth"]).to_numpy()
    return reliability(table[columns].max(axis=1).to_numpy(float), correct) if columns else None


def _interval_unit(table: pd.DataFrame, entries: Mapping[str, ImageEntry], by: Sequence[str] | None) -> str:
    """Describe the groups that are resampled for confidence intervals."""
    n_groups, images = table["group"].nunique(), table["image"].unique()
    if n_groups == 1:
        return f"{len(table):,} single objects"
    if len(images) == 1:
        return f"{n_groups} regions of one image"
    columns = by or group_columns(
        dict.fromkeys(c for image in images if image in entries for c in entries[image].groups)
    )
    return f"{n_groups} groups ({', '.join(columns)})" if columns else f"{n_groups} images"


MAX_IMAGES_NAMED = 5
MAX_ROWS_SHOWN = 30  # rows of a table in HTML
FEW_GROUPS = 6  # Student's t is 2.6 for six groups, 12.7 for two, and 2.0 for many


def report_notes(report: Evaluation) -> list[str]:
    """Return the sentences that are needed to interpret the scores."""
    notes = []
    if report.network is not None:
        single = " All objects are from one group; other groups may differ." * (report.network.groups == 1)
        few = " With labels in more of them, the intervals get narrower." * (1 < report.network.groups < FEW_GROUPS)
        notes.append(f"Intervals are over {report.interval_unit}.{single}{few}")
    if report.sampling:
        notes.append(report.sampling)
    if report.reliability is not None and report.uncalibrated is not None:
        notes.append(_calibration_note(report.reliability, report.uncalibrated, report.calibration))
    if flagged := [f"{count:,} as {flag.replace('_', ' ')}" for flag, count in report.left_out.items() if count]:
        notes.append(f"Flagged and not scored: {', '.join(flagged)}.")
    if report.outdated:
        notes.append("The annotations have changed since this run was trained.")
    if report.outdated_images:
        notes.append(outdated_text(report.outdated_images))
    if not report.images.empty and report.images["warn"].any():
        notes.append(outlying_images(report.images))
    return notes


def outdated_text(images: Sequence[str]) -> str:
    """Return a sentence about images that have changed since they were predicted."""
    named = f"image {images[0]!r} has" if len(images) == 1 else f"images {format_list(images, MAX_IMAGES_NAMED)} have"
    return (
        f"The predictions are outdated, since the {named} changed after they were computed. Call "
        "project.predict() to predict the changed pixels."
    )


def _calibration_note(after: Reliability, before: Reliability, calibration: Calibration) -> str:
    chance = f"(perfect calibration would show {after.expected_by_chance:.1%} with so few objects)"
    if calibration.is_identity:
        return f"Expected calibration error {after.error:.1%} {chance}; the probabilities are not corrected."
    method = f"temperature {calibration.temperature:.2g}" + (" and bias" if calibration.bias else "")
    return (
        f"Probabilities are calibrated ({method}): expected calibration error {after.error:.1%} on other objects "
        f"{chance}, {before.error:.1%} before."
    )


def outlying_images(images: pd.DataFrame) -> str:
    """Return a sentence about the images that look unlike the annotated images.

    Parameters
    ----------
    images : DataFrame
        See `core.stats.outliers.flag_unfamiliar_images`.
    """
    unlike = images[images["warn"]].sort_values("unlike", ascending=False)["unlike"]
    names = [f"{image} ({share:.0%} of its objects)" for image, share in unlike.items()]
    verb = "1 image looks" if len(unlike) == 1 else f"{len(unlike)} images look"
    return (
        f"{verb} unlike the annotated images: {format_list(names, MAX_IMAGES_NAMED)}. Annotate some objects there "
        "before you trust the predictions."
    )


def report_html(report: Evaluation) -> str:
    """Return the report as plain HTML tables; all names are escaped."""
    scores = report.network
    lines = str(report).split("\n")
    if scores is None:
        return "".join(f"<div>{escape(line)}</div>" for line in lines)
    estimates = scores.accuracy, scores.balanced_accuracy, scores.macro_f1
    overall = [(_percent(one.value), f"{_percent(one.low)} to {_percent(one.high)}") for one in estimates]
    groups = scores.by_group.sort_values("accuracy", kind="stable").reset_index()  # the worst first
    groups = groups[["group", "n", "accuracy", "balanced_accuracy"]]
    notes = report_notes(report)
    if len(groups) > MAX_ROWS_SHOWN:
        notes.append(f"{len(groups) - MAX_ROWS_SHOWN} more groups are not shown.")
    tables = [
        pd.DataFrame(overall, ["accuracy", "balanced accuracy", "macro F1"], ["share", "95 % interval"]).reset_index(
            names=""
        ),
        pd.DataFrame(_class_rows(scores), columns=["class", "objects", "recall", "precision", "F1"]),
        scores.confusion.rename_axis(index="truth \\ predicted", columns=None).reset_index(),
        groups.head(MAX_ROWS_SHOWN).set_axis(["group", "objects", "accuracy", "balanced"], axis=1),
    ]
    flex = "display:flex;flex-wrap:wrap;align-items:flex-start;gap:6px 24px;margin:6px 0"
    muted = "".join(f'<div style="color:var(--jp-ui-font-color2,#666)">{escape(line)}</div>' for line in notes)
    return f'<div>{escape(lines[0])}</div><div style="{flex}">{"".join(map(_html_table, tables))}</div>{muted}'


def _html_table(table: pd.DataFrame) -> str:
    formats = dict.fromkeys(table.select_dtypes("integer"), "{:,}".format)
    with pd.option_context("display.max_colwidth", None):
        return table.to_html(index=False, border=0, formatters=formats, float_format="{:.1%}".format, na_rep="–")


def _class_rows(scores: Scores) -> list[tuple[str, str, str, str, str]]:
    def share(row: pd.Series, name: str) -> str:
        if math.isnan(row[name]):
            return "–"
        return f"{_percent(row[name])} ({_percent(row[f'{name}_low'])} to {_percent(row[f'{name}_high'])})"

    return [
        (str(name), f"{int(row['n']):,}", share(row, "recall"), share(row, "precision"), _percent(row["f1"]))
        for name, row in scores.per_class.iterrows()
    ]


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1%}"


def _to_plain(value: Any) -> Any:
    """Return a value as JSON types: tables as lists of rows, NaN as None."""
    if isinstance(value, pd.DataFrame):
        value = (value.reset_index() if value.index.name else value).to_dict("records")
    if isinstance(value, Mapping):
        return {str(key): _to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return _to_plain(vars(value))
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
