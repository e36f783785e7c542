"""An evaluation as text, as HTML at the end of a notebook cell, and as JSON."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from svetlana_jupyter.core.scores import Estimate, Scores
    from svetlana_jupyter.project.evaluation import Evaluation

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
