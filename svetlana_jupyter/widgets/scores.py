"""How good a run is, as HTML: the network beside the forest, what was taken for what, and each class on its own."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

from svetlana_jupyter.widgets.parts import color_swatch, muted

if TYPE_CHECKING:
    import pandas as pd

    from svetlana_jupyter.core.classes import ClassScheme
    from svetlana_jupyter.core.scores import Estimate, Scores
    from svetlana_jupyter.project.evaluation import Evaluation

_RIGHT, _WRONG = "var(--jp-brand-color1, #1976d2)", "var(--jp-error-color1, #d32f2f)"
_STRONG = 55  # percent of the colour behind a cell that holds a whole class


def score_cards(report: Evaluation, forest_only: bool = False) -> str:
    """Return the scores of a run's classifier and of the forest beside it.

    Parameters
    ----------
    report : Evaluation
    forest_alone : bool
        The run is a forest: there is nothing to compare it with.
    """
    if report.network is None:
        return muted(report.text)
    cards = [("Random forest on measurements" if forest_only else "This network", report.network)]
    if not forest_only:
        cards.append(("Random forest on measurements", report.forest))
    shown = "".join(_card(title, scores) for title, scores in cards)
    advice = "" if forest_only else _advice(report)
    return f'<div class="sv-scores">{shown}</div>{advice}'


def confusion(scores: Scores, classes: ClassScheme) -> str:
    """Return the confusion matrix: a row for each true class, coloured by the share of it that was taken for what."""
    colors = {info.name: info.color for info in classes}
    names = list(scores.confusion.columns)
    head = "".join(f'<th title="{_attribute(name)}">{_named(name, colors)}</th>' for name in names)
    rows = []
    for truth in names:
        counts = scores.confusion.loc[truth]
        total = int(counts.sum())
        cells = "".join(
            _cell(int(counts[name]), total, right=name == truth, title=_told(truth, name, int(counts[name]), total))
            for name in names
        )
        rows.append(f'<tr><th title="{_attribute(truth)}">{_named(truth, colors)}</th>{cells}</tr>')
    return (
        '<div class="sv-confusion"><table class="sv-matrix">'
        f"<caption>{muted('Rows: what it is. Columns: what it was taken for.')}</caption>"
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def by_class(scores: Scores, classes: ClassScheme) -> str:
    """Return recall and precision of each class, with their intervals."""
    colors = {info.name: info.color for info in classes}
    rows = []
    for name, row in scores.per_class.iterrows():
        shares = (f'<td class="sv-nowrap">{_share(row, kind)}</td>' for kind in _KINDS)
        cells = [f'<td class="sv-number">{int(row["n"]):,}</td>', *shares]
        rows.append(f'<tr><td class="sv-nowrap">{_named(str(name), colors)}</td>{"".join(cells)}</tr>')
    head = "".join(f"<th>{text}</th>" for text in ("Class", "Objects", "Found (recall)", "Right (precision)"))
    table = f'<table class="sv-table"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="sv-confusion">{table}</div>'


def percent(value: float) -> str:
    """Return a share as whole percents, – where it is not known.

    >>> percent(0.934), percent(float("nan"))
    ('93 %', '–')
    """
    return "–" if math.isnan(value) else f"{100 * value:.0f} %"


_KINDS = ("recall", "precision")


def _card(title: str, scores: Scores | None) -> str:
    if scores is None:
        said = muted("not known")
        return f'<div class="sv-score"><span>{html.escape(title)}</span><b>–</b>{said}</div>'
    said = [f"{_interval(scores.accuracy)} · {scores.accuracy.n:,} held-out objects"]
    said.append(f"balanced {percent(scores.balanced_accuracy.value)}, {_interval(scores.balanced_accuracy)}")
    return (
        f'<div class="sv-score"><span>{html.escape(title)}</span><b>{percent(scores.accuracy.value)}</b>'
        f"{'<br>'.join(map(muted, said))}</div>"
    )


def _advice(report: Evaluation) -> str:
    """Say that no network is needed, where the forest is at least as good."""
    if report.network is None or report.forest is None:
        return ""
    network, forest = report.network.balanced_accuracy.value, report.forest.balanced_accuracy.value
    if math.isnan(network) or math.isnan(forest) or forest < network:
        return ""
    return muted("The forest is at least as good here: no network is needed for these classes.")


def _interval(found: Estimate) -> str:
    return f"{percent(found.low)} to {percent(found.high)}"


def _share(row: pd.Series, kind: str) -> str:
    if math.isnan(row[kind]):
        return "–"
    between = f"{percent(row[f'{kind}_low'])} to {percent(row[f'{kind}_high'])}"
    return f"{percent(row[kind])} {muted(between)}"


def _cell(count: int, total: int, right: bool, title: str) -> str:
    strength = _STRONG * count / total if total else 0
    color = _RIGHT if right else _WRONG
    ground = f"background:color-mix(in srgb, {color} {strength:.0f}%, transparent)"
    return f'<td style="{ground}" title="{_attribute(title)}">{count if count else "·"}</td>'


def _told(truth: str, predicted: str, count: int, total: int) -> str:
    return f"{count:,} of {total:,} {truth} taken for {predicted}"


def _named(name: str, colors: dict[str, str]) -> str:
    return f"{color_swatch(colors[name]) if name in colors else ''}{html.escape(name)}"


def _attribute(text: str) -> str:
    return html.escape(text, quote=True)
