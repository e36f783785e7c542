"""What the current run is worth: its scores beside the forest's, warnings, what was taken for what, what was tried.

How good a run is, as HTML: the network beside the forest, what was taken for what, and each class on its own.

The table of runs: one row each, with a button that puts that run to use.

What was tried to find a run's preset, as HTML.

The live curves of a training as SVG: crisp at any zoom, a few kilobytes, no plotting library at work.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import pandas as pd
from ipywidgets import HTML, Button, HBox, VBox

from svetlana_jupyter.core.allowed_cues import CUES
from svetlana_jupyter.core.settings import PRESET_DESCRIPTIONS
from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.project.evaluation import report_notes
from svetlana_jupyter.widgets.components import color_swatch, format_duration, muted, side_by_side, table
from svetlana_jupyter.widgets.scheduling import LatestQuestion

if TYPE_CHECKING:
    from svetlana_jupyter.core.classes import ClassScheme
    from svetlana_jupyter.core.stats.metrics import Estimate, Scores
    from svetlana_jupyter.project.evaluation import Evaluation
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.project.runs import Run

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


_HEAD = ("Preset", "What is seen", "Held-out accuracy", "95 % interval", "Balanced", "Trained for", "")
_TOO_GOOD = "Of several, the best owes a little to luck: the score above is that of choosing."


def model_selection_card(run: Run) -> str:
    """Return how the preset of a run came about, with one row for each that was tried; "" where it was named.

    Raises
    ------
    ProjectError
        If what was tried cannot be read.
    """
    if not run.choice:
        return ""
    tried = run.tried()
    if tried.empty:
        return muted(run.choice)
    rows = [
        (
            str(name),
            PRESET_DESCRIPTIONS.get(str(name), ""),
            percent(row["accuracy"]),
            f"{percent(row['low'])} to {percent(row['high'])}",
            percent(row["balanced"]),
            "–" if pd.isna(row["epochs"]) else f"{row['epochs']} epochs",
            "chosen" if row["chosen"] else "" if row["finalist"] else "left\u00a0behind",
        )
        for name, row in tried.iterrows()
    ]
    current = tried["chosen"].tolist().index(True) if tried["chosen"].any() else None
    return f"{muted(run.choice)}<div>{table(_HEAD, rows, current)}</div>{muted(_TOO_GOOD)}"


_EMPTY = "Nothing is trained yet. After the first training, its score stands here beside a random forest's."


class RunScores(VBox):
    """The scores of the current run, computed beside the kernel's loop.

    Parameters
    ----------
    project : Project

    Attributes
    ----------
    cards, warning, tables, tried, notes : HTML
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._latest: LatestQuestion[Run] = LatestQuestion(self._evaluated, self._draw, delay=0.0)
        self.cards, self.warning, self.tables, self.tried, self.notes = (HTML(layout=_WIDE) for _ in range(5))
        shown = [self.cards, self.warning, self.tables, self.tried, self.notes]
        super().__init__(shown, layout={"width": "100%"})

    def show(self) -> None:
        """Bring the scores up to the project's current run."""
        if self._project.current_run:
            self._latest.ask(self._project.runs.current)
            return
        self._latest.drop()
        self.cards.value = f'<div class="sv-empty sv-calm">{muted(_EMPTY)}</div>'
        self._clear()

    def _clear(self) -> None:
        self.warning.value = self.tables.value = self.tried.value = self.notes.value = ""

    def _evaluated(self, run: Run) -> tuple[Run, Evaluation | str, str]:
        try:
            return run, self._project.evaluate(run.name), model_selection_card(run)
        except SvetlanaError as error:
            return run, str(error), ""

    def _draw(self, answer: tuple[Run, Evaluation | str, str]) -> None:
        run, report, tried = answer
        self._clear()
        if isinstance(report, str):
            self.cards.value = muted(report)
            self.notes.value = _lines(run.remarks)
            return
        self.cards.value = score_cards(report, forest_only=run.settings["architecture"] == "forest")
        self.tried.value = tried
        if report.warning:
            said = html.escape(report.warning)
            self.warning.value = f'<div class="sv-status sv-trouble" role="alert">{said}</div>'
        self.notes.value = _lines([*run.remarks, *([run.note, *report_notes(report)] if report.network else [])])
        if report.network is not None:
            classes = self._project.classes
            self.tables.value = side_by_side(confusion(report.network, classes), by_class(report.network, classes))


def _lines(said: list[str]) -> str:
    return "<br>".join(map(muted, said))


_WIDE = {"width": "100%", "margin": "2px 0"}


_COLUMNS = ("Run", "Finished", "Preset", "What may count", "Labels", "Network", "Forest", "Took")


class RunTable(VBox):
    """Runs to compare and choose from, the latest first; their scores are computed beside the kernel's loop.

    Parameters
    ----------
    project : Project
    choose : callable
        Called with the name of the run whose button is pressed.
    """

    def __init__(self, project: Project, choose: Callable[[str], None]) -> None:
        self._project, self._choose = project, choose
        self._rows: dict[str, tuple[Button, HTML]] = {}
        self._scores: dict[tuple[str, str], tuple[str, str]] = {}
        self._latest: LatestQuestion[tuple[Run, ...]] = LatestQuestion(self._score, self._keep, delay=0.0)
        self._none = HTML(muted("There are none yet."))
        self._head = HBox(
            [
                HTML(layout={"width": "36px", "flex": "0 0 auto", "margin": "0"}),
                HTML(_cells(_COLUMNS, "sv-head"), layout={"flex": "1 1 auto", "margin": "1px 0"}),
            ],
            layout={"flex": "0 0 auto"},
        )
        super().__init__([self._none], layout={"width": "100%", "max_height": "260px", "overflow": "auto"})

    def show(self) -> None:
        """Show the runs that the project has now."""
        runs = {run.name: run for run in reversed(self._project.runs)}
        if list(runs) != list(self._rows):
            self._rows = {name: self._rows.get(name) or self._row(name) for name in runs}
            lines = [HBox(row, layout={"min_height": "30px", "flex": "0 0 auto"}) for row in self._rows.values()]
            self.children = (self._head, *lines) if lines else (self._none,)
        for name, (button, cells) in self._rows.items():
            used = name == self._project.current_run
            button.icon = "dot-circle-o" if used else "circle-o"
            button.tooltip = f"Run {name} is in use" if used else f"Use run {name}"
            cells.value = _cells(self._text(runs[name]), "sv-used" if used else "")
        if unknown := tuple(run for run in runs.values() if (run.name, run.note) not in self._scores):
            self._latest.ask(unknown)

    def button(self, name: str) -> Button:
        """Return the button of a run."""
        return self._rows[name][0]

    def _row(self, name: str) -> tuple[Button, HTML]:
        button = Button(layout={"width": "32px", "padding": "0", "margin": "1px 4px 1px 0", "flex": "0 0 auto"})
        button.on_click(lambda _: self._choose(name))
        return button, HTML(layout={"flex": "1 1 auto", "margin": "1px 0"})

    def _text(self, run: Run) -> tuple[str, ...]:
        """Return a run as cells of text."""
        return (
            run.name,
            f"{datetime.fromisoformat(run.finished).astimezone():%Y-%m-%d %H:%M}",
            f"{run.settings['preset']}, {run.settings['architecture']}",
            _evidence(run.settings.get("may_use", CUES)),
            f"{sum(run.labels.values()):,}",
            *self._scores.get((run.name, run.note), ("…", "…")),
            format_duration(run.seconds) + (" (stopped)" if run.stopped else ""),
        )

    def _score(self, runs: tuple[Run, ...]) -> dict[tuple[str, str], tuple[str, str]]:
        found = {}
        for run in runs:
            known = self._project.runs.score(run)
            found[run.name, run.note] = _accuracy(known.network), _accuracy(known.forest)
        return found

    def _keep(self, scores: dict[tuple[str, str], tuple[str, str]]) -> None:
        self._scores |= scores
        self.show()


def _evidence(allowed: Sequence[str]) -> str:
    """Say what may count."""
    if set(allowed) == set(CUES):
        return "everything"
    return ", ".join(name for name in CUES if name in allowed) or "shape alone"


def _accuracy(scores: Scores | None) -> str:
    return percent(scores.accuracy.value) if scores and scores.accuracy.n else "–"


def _cells(texts: Sequence[str], look: str) -> str:
    return f'<div class="sv-run {look}">' + "".join(f"<span>{html.escape(text)}</span>" for text in texts) + "</div>"


WIDTH, HEIGHT = 472, 176
_LEFT, _RIGHT_CURVES, _TOP, _BOTTOM = 40, 12, 26, 24
_LOSS, _SCORE = "#0072b2", "#d55e00"

Point = tuple[int, float]


def curves(epochs: Sequence[int], losses: Sequence[float], scores: Sequence[float | None], total: int) -> str:
    """Draw the loss and, beside it, the score, over an axis that is fixed from the start.

    Parameters
    ----------
    epochs : sequence of int, from 1
    losses, scores : sequences as long as ``epochs``
        A score may be None where none was computed; what is not finite is left out.
    total : int
        Epochs planned: the end of the axis, so that the curve grows and the axis stays.

    Returns
    -------
    str
        Two ``<svg>`` elements side by side.
    """
    last = max(total, *epochs, 2)
    loss = [(epoch, loss) for epoch, loss in zip(epochs, losses) if math.isfinite(loss)]
    score = [(epoch, score) for epoch, score in zip(epochs, scores) if score is not None and math.isfinite(score)]
    top = _round_up(max((value for _, value in loss), default=1.0))
    none = "small sets are scored by cross-validation at the end" if loss else ""
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:8px 16px">'
        + _plot("Loss", loss, last, top, _LOSS, "{:.3f}", "")
        + _plot("Score on held-out objects", score, last, 1.0, _SCORE, "{:.0%}", none)
        + "</div>"
    )


def _plot(title: str, points: Sequence[Point], last: int, top: float, color: str, form: str, otherwise: str) -> str:
    base, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT_CURVES
    across, up = right - _LEFT, base - _TOP
    parts = [_text(_LEFT, 14, title, weight=600)]
    for share in (0.0, 0.5, 1.0):
        level = base - up * share
        parts.append(f'<path d="M{_LEFT} {level}H{right}" stroke="currentColor" opacity=".15"/>')
        parts.append(_text(_LEFT - 6, level + 4, f"{top * share:.2g}", anchor="end", opacity=0.7))
    parts.append(_text(_LEFT, HEIGHT - 7, "1", opacity=0.7))
    parts.append(_text(right, HEIGHT - 7, f"epoch {last}", anchor="end", opacity=0.7))
    said = otherwise
    if points:
        placed = [(_LEFT + across * (epoch - 1) / (last - 1), base - up * value / top) for epoch, value in points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        x, y = placed[-1]
        said = form.format(points[-1][1])
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>')
        parts.append(_text(right, 14, said, anchor="end", weight=600, color=color))
    else:
        parts.append(_text(_LEFT + across / 2, base - up / 4, otherwise, anchor="middle", opacity=0.7))
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" style="max-width:100%" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{title}: {said}" fill="currentColor" font-size="11">{"".join(parts)}</svg>'
    )


def _text(
    x: float,
    y: float,
    text: str,
    anchor: str = "start",
    opacity: float = 1.0,
    weight: int = 400,
    color: str = "currentColor",
) -> str:
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" opacity="{opacity}" font-weight="{weight}" fill="{color}">'
        f"{text}</text>"
    )


def _round_up(value: float) -> float:
    """Return the next of 0.1, 0.2, 0.5, 1, 2, 5 …, so that the axis seldom changes."""
    decade = 10.0 ** math.floor(math.log10(max(value, 0.1)))
    return next(step * decade for step in (1, 2, 5, 10) if value <= step * decade * (1 + 1e-9))
