"""Views of training runs: scores, search results, table of runs, live curves."""

from __future__ import annotations

import html
import math
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd
from ipywidgets import HTML, Button, HBox, VBox

from svetlana_jupyter.core.features.catalog import CUES
from svetlana_jupyter.core.settings import FOREST, LIVE_CLASSIFIER, PRESET_DESCRIPTIONS, parse_allowed_cues
from svetlana_jupyter.project.evaluation import report_notes
from svetlana_jupyter.project.jobs import format_duration, panel_call
from svetlana_jupyter.widgets.components import (
    Markup,
    button,
    color_swatch,
    error_html,
    error_text,
    html_table,
    muted,
    side_by_side,
)
from svetlana_jupyter.widgets.scheduling import LatestQuestion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from svetlana_jupyter.core.classes import ClassInfo
    from svetlana_jupyter.core.stats.metrics import Estimate, Scores
    from svetlana_jupyter.project.evaluation import Evaluation
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.project.runs import Run

_NO_RUN = "No classifier yet. After training, its scores appear here next to those of a random forest."
_AWAITED, _NOT_COMPUTED = "being scored …", "not computed yet: press Compute the missing scores"
_WIDE = {"width": "100%", "margin": "2px 0"}


class RunScores(VBox):
    """Scores of the current run, computed in the background.

    Training notes (initial weights, out-of-memory retries) stay visible below the scores.

    Parameters
    ----------
    project : Project
    score : callable
        Called with the name of the run whose missing scores are to be computed.

    Attributes
    ----------
    cards, warning, tables, search_results, notes : HTML
    compute : Button
        Computes missing scores; shown for a run that was not scored.
    """

    def __init__(self, project: Project, score: Callable[[str], None]) -> None:
        self._project = project
        self._latest = LatestQuestion(self._evaluate, self._show_evaluation, 0.0, self._show_error)
        self.cards, self.warning, self.tables, self.search_results, self.notes = (HTML(layout=_WIDE) for _ in range(5))
        self._parts = [self.cards, self.warning, self.tables, self.search_results, self.notes]
        tooltip = "Score the run in the background, on objects that it was not trained on"
        self.compute = button(
            lambda: score(project.current_run),
            "Compute the missing scores",
            "",
            tooltip,
            width="auto",
            align_self="flex-start",
        )
        super().__init__([self.cards, self.compute, *self._parts[1:]], layout={"width": "100%"})

    def show(self) -> None:
        """Show the scores of the project's current run."""
        if self._project.current_run:
            self._latest.ask(self._project.runs.current)
            return
        self._latest.ask(None)
        self._clear()
        self.cards.value = f'<div class="sv-empty sv-calm">{muted(_NO_RUN)}</div>'

    def _clear(self) -> None:
        for part in self._parts:
            part.value = ""
        self.compute.layout.display = "none"

    def _evaluate(self, run: Run) -> tuple[Run, Evaluation, str]:
        with panel_call():
            return run, self._project.evaluate(run.name), search_results_html(run)

    def _show_evaluation(self, answer: tuple[Run, Evaluation, str]) -> None:
        run, report, search_results = answer
        self._clear()
        is_awaited = self._project.background.is_scoring(run)
        missing = "" if "forest" not in run.missing_scores else _AWAITED if is_awaited else _NOT_COMPUTED
        self.cards.value = score_cards(report, str(run.settings["architecture"]), missing)
        self.compute.layout.display = "" if run.missing_scores and not is_awaited else "none"
        self.search_results.value = search_results
        self.warning.value = error_html(report.warning) if report.warning else ""
        notes = list(run.remarks)
        if report.network is not None:
            notes += [run.note, *report_notes(report)]
            self.tables.value = score_tables(report.network, self._project.classes)
        self.notes.value = "<br>".join(map(muted, notes))

    def _show_error(self, run: Run, error: Exception) -> None:
        self._clear()
        self.cards.value = muted(error_text(error, f"Run {run.name} cannot be evaluated"))
        self.notes.value = "<br>".join(map(muted, run.remarks))


def score_cards(report: Evaluation, architecture: str = "small_cnn", missing: str = "") -> str:
    """Return the scores of a run and of a random forest as HTML.

    Parameters
    ----------
    report : Evaluation
    architecture : str
        Architecture of the classifier. A random forest is not compared with itself.
    missing : str
        Why the forest has no score yet; "" if it gets none, as for a score on the test set.
    """
    if report.network is None:
        return muted(report.text)
    forest_title = "Random forest on measured features"
    if architecture == FOREST:
        return f'<div class="sv-scores">{_card(forest_title, report.network)}</div>'
    title = "Live classifier" if architecture == LIVE_CLASSIFIER else "This network"
    cards = _card(title, report.network)
    if report.forest is not None or missing:
        cards += _card(forest_title, report.forest, missing)
    return f'<div class="sv-scores">{cards}</div>{_advice(report)}'


def score_tables(scores: Scores, classes: Iterable[ClassInfo]) -> str:
    """Return the confusion matrix and the scores per class as HTML.

    Each cell of the matrix is colored by its fraction of the true class. Recall and precision have 95 % intervals.
    """
    swatches = {info.name: color_swatch(info.color) for info in classes}
    titles = {name: swatches.get(name, "") + html.escape(name) for name in scores.confusion.columns}
    heads = {name: f'<th title="{html.escape(name)}">{title}</th>' for name, title in titles.items()}
    rows = []
    for truth, head in heads.items():
        counts = list(map(int, scores.confusion.loc[truth]))
        cells = "".join(_confusion_cell(truth, name, count, sum(counts)) for name, count in zip(heads, counts))
        rows.append(f"<tr>{head}{cells}</tr>")
    matrix = (
        f'<table class="sv-matrix"><caption>{muted("Rows: true class. Columns: predicted class.")}</caption>'
        f"<thead><tr><th></th>{''.join(heads.values())}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
    per_class = [
        (Markup(titles[str(name)]), int(row["n"]), *(_with_interval(row, kind) for kind in ("recall", "precision")))
        for name, row in scores.per_class.iterrows()
    ]
    parts = matrix, html_table(["Class", "Objects", "Recall", "Precision"], per_class)
    return side_by_side(*(f'<div class="sv-confusion">{part}</div>' for part in parts))


def format_percent(value: float) -> str:
    """Return a fraction in whole percent, or "–" if it is NaN.

    >>> format_percent(0.934), format_percent(float("nan"))
    ('93 %', '–')
    """
    return "–" if math.isnan(value) else f"{100 * value:.0f} %"


def _card(title: str, scores: Scores | None, missing: str = "") -> str:
    value, lines = "–", muted(missing)
    if scores is not None:
        accuracy, balanced = scores.accuracy, scores.balanced_accuracy
        value = format_percent(accuracy.value)
        first = f"accuracy, 95 % interval {_interval(accuracy)} · {accuracy.n:,} held-out objects"
        second = f"balanced accuracy {format_percent(balanced.value)}, {_interval(balanced)}"
        lines = f"{muted(first)}<br>{muted(second)}"
    return f'<div class="sv-score"><span>{html.escape(title)}</span><b>{value}</b>{lines}</div>'


def _advice(report: Evaluation) -> str:
    """Return a note if the forest scores at least as high as the classifier."""
    if report.network is None or report.forest is None:
        return ""
    network, forest = report.network.balanced_accuracy, report.forest.balanced_accuracy
    # A comparison with NaN is false: without both estimates there is no advice.
    text = f"On these {network.n:,} objects, the random forest scores at least as high as this classifier."
    return muted(text) if forest.value >= network.value else ""


def _interval(estimate: Estimate) -> str:
    return f"{format_percent(estimate.low)} to {format_percent(estimate.high)}"


def _with_interval(row: pd.Series, kind: str) -> Markup:
    value, low, high = (format_percent(row[column]) for column in (kind, f"{kind}_low", f"{kind}_high"))
    return Markup("–" if math.isnan(row[kind]) else f"{value} {muted(f'{low} to {high}')}")


def _confusion_cell(truth: str, predicted: str, count: int, total: int) -> str:
    color = "var(--jp-brand-color1, #1976d2)" if truth == predicted else "var(--jp-error-color1, #d32f2f)"
    strength = 55 * count / total if total else 0  # percent of the color; more would make the digits hard to read
    background = f"background:color-mix(in srgb, {color} {strength:.0f}%, transparent)"
    title = html.escape(f"{count:,} of {total:,} {truth} predicted as {predicted}")
    return f'<td style="{background}" title="{title}">{count if count else "·"}</td>'


_SEARCH_COLUMNS = ("Preset", "Input and augmentation", "Accuracy", "95 % interval", "Balanced", "Trained for", "")
_OPTIMISM = (
    "The best of several candidates looks slightly too good; the score above corrects for this "
    "(nested cross-validation)."
)


def search_results_html(run: Run) -> str:
    """Return the search results of a run as HTML, with one row per candidate preset.

    The result is "" if the user chose the preset.

    Raises
    ------
    ProjectError
        If the search results cannot be read.
    """
    if not run.choice:
        return ""
    candidates = run.search_results()
    if candidates.empty:
        return muted(run.choice)
    rows = [
        (
            str(name),
            PRESET_DESCRIPTIONS.get(str(name), ""),
            format_percent(row["accuracy"]),
            Markup(f"{format_percent(row['low'])} to {format_percent(row['high'])}"),
            format_percent(row["balanced"]),
            "–" if pd.isna(row["epochs"]) else f"{row['epochs']} epochs",
            "chosen" if row["chosen"] else "" if row["finalist"] else "dropped\u00a0early",
        )
        for name, row in candidates.iterrows()
    ]
    current = candidates["chosen"].tolist().index(True) if candidates["chosen"].any() else None
    return f"{muted(run.choice)}<div>{html_table(_SEARCH_COLUMNS, rows, current)}</div>{muted(_OPTIMISM)}"


_RUN_COLUMNS = ("Run", "Finished", "Labels", "Network", "Forest", "Preset", "Allowed cues", "Duration")


# On a narrow page, the whole table scrolls.
_ROW_LAYOUT = {"min_height": "30px", "flex": "0 0 auto", "min_width": "712px", "overflow": "visible"}


class RunTable(VBox):
    """Table of runs to compare and choose from, the latest run first.

    The scores are computed in the background.

    Parameters
    ----------
    project : Project
    choose : callable
        Called with the name of the run whose button is pressed.
    """

    def __init__(self, project: Project, choose: Callable[[str], None]) -> None:
        self._project, self._choose = project, choose
        self._rows: dict[str, tuple[Button, HTML]] = {}
        # Accuracy of network and forest, as text, by the state of a run: a new note means new scores.
        self._scores: dict[_State, tuple[str, str]] = {}
        self._latest = LatestQuestion(self._score, self._add_scores, delay=0.0)
        self._empty = HTML(muted("No runs yet."))
        above_buttons = HTML(layout={"width": "36px", "flex": "0 0 auto", "margin": "0"})
        titles = HTML(_row_html(_RUN_COLUMNS, "sv-head"), layout={"flex": "1 1 auto", "margin": "1px 0"})
        self._head = HBox([above_buttons, titles], layout=_ROW_LAYOUT)
        super().__init__([self._empty], layout={"width": "100%", "max_height": "260px", "overflow": "auto"})

    def show(self) -> None:
        """Show the runs of the project."""
        runs = {run.name: run for run in reversed(self._project.runs)}
        if list(runs) != list(self._rows):
            self._rows = {name: self._rows.get(name) or self._make_row(name) for name in runs}
            lines = [HBox(row, layout=_ROW_LAYOUT) for row in self._rows.values()]
            self.children = (self._head, *lines) if lines else (self._empty,)
        for name, (choose, cells) in self._rows.items():
            current = name == self._project.current_run
            choose.icon = "dot-circle-o" if current else "circle-o"
            choose.tooltip = f"Run {name} is in use" if current else f"Use run {name}"
            cells.value = _row_html(self._texts(runs[name]), "sv-used" if current else "")
        if unscored := tuple(run for run in runs.values() if self._state(run) not in self._scores):
            self._latest.ask(unscored)

    def button(self, name: str) -> Button:
        """Return the button that chooses a run."""
        return self._rows[name][0]

    def _make_row(self, name: str) -> tuple[Button, HTML]:
        act = partial(self._choose, name)
        choose = button(act, width="32px", padding="0", margin="1px 4px 1px 0", flex="0 0 auto")
        return choose, HTML(layout={"flex": "1 1 auto", "margin": "1px 0"})

    def _texts(self, run: Run) -> tuple[str, ...]:
        allowed = parse_allowed_cues(run.settings.get("may_use", CUES))
        return (
            run.name,
            f"{datetime.fromisoformat(run.finished).astimezone():%Y-%m-%d %H:%M}",
            f"{sum(run.labels.values()):,}",
            *self._scores.get(self._state(run), ("…", "…")),
            f"{run.settings['preset']}, {run.settings['architecture']}",
            "all" if set(allowed) == set(CUES) else ", ".join(cue for cue in CUES if cue in allowed) or "shape only",
            format_duration(run.seconds) + (" (stopped)" if run.stopped else ""),
        )

    def _state(self, run: Run) -> _State:
        return run.name, run.note, len(run.missing_scores), self._project.background.is_scoring(run)

    def _score(self, runs: tuple[Run, ...]) -> dict[_State, tuple[str, str]]:
        texts = {}
        for run in runs:
            state, report = self._state(run), self._project.runs.score(run)
            missing = "scoring …" if state[-1] else "–"
            texts[state] = _accuracy(report.network, missing), _accuracy(report.forest, missing)
        return texts

    def _add_scores(self, scores: dict[_State, tuple[str, str]]) -> None:
        self._scores |= scores
        self.show()


_State = tuple[str, str, int, bool]  # name, note, number of missing scores, whether they are being computed


def _accuracy(scores: Scores | None, missing: str) -> str:
    return format_percent(scores.accuracy.value) if scores and scores.accuracy.n else missing


def _row_html(texts: Sequence[str], css_class: str) -> str:
    cells = "".join(f"<span>{html.escape(text)}</span>" for text in texts)
    return f'<div class="sv-run {css_class}">{cells}</div>'


WIDTH, HEIGHT = 440, 176  # of one plot; two plots fit side by side into a window of 1100 pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 12, 26, 24  # margins of a plot
# Blue and vermilion of Okabe and Ito, distinct to color-blind readers; panel.css brightens them in a dark theme.
_LOSS, _SCORE = "var(--sv-loss, #0072b2)", "var(--sv-score, #d55e00)"

_END, _PALE = 'text-anchor="end"', 'opacity="0.7"'

Point = tuple[int, float]


def curves(points: Sequence[tuple[int, float, float | None]], total: int) -> str:
    """Plot loss and validation score over epochs as SVG.

    SVG is sharp at any zoom, takes a few kilobytes per update and needs no plotting library.

    Parameters
    ----------
    points : sequence of (int, float, float or None)
        Epoch (counted from 1), loss, and score (or None). Values that are not finite are left out.
    total : int
        Planned number of epochs. The axis ends there, so that it does not change while the curve grows.

    Returns
    -------
    str
        One ``<svg>`` element per curve, side by side. A sentence takes the place of the score if it has no values.
    """
    last = max(total, 2, *(epoch for epoch, _, _ in points))
    loss = [(epoch, loss) for epoch, loss, _ in points if math.isfinite(loss)]
    score = [(epoch, score) for epoch, _, score in points if score is not None and math.isfinite(score)]
    top = _round_up(max((value for _, value in loss), default=1.0))
    parts = [_plot("Loss", loss, last, top, _LOSS, "{:.3f}")] if loss else []
    if score:
        parts.append(_plot("Score on held-out objects", score, last, 1.0, _SCORE, "{:.0%}"))
    elif loss:
        parts.append(muted("No score per epoch: with few annotations, cross-validation scores the run at the end."))
    return f'<div style="display:flex;flex-wrap:wrap;gap:8px 16px">{"".join(parts)}</div>' if parts else ""


def _plot(title: str, points: Sequence[Point], last: int, top: float, color: str, form: str) -> str:
    base, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    width, height = right - _LEFT, base - _TOP
    parts = [_text(_LEFT, 14, title, 'font-weight="600"')]
    for fraction in (0.0, 0.5, 1.0):
        y = base - height * fraction
        parts.append(f'<path d="M{_LEFT} {y}H{right}" stroke="currentColor" opacity=".15"/>')
        parts.append(_text(_LEFT - 6, y + 4, f"{top * fraction:.2g}", f"{_END} {_PALE}"))
    parts.append(_text(_LEFT, HEIGHT - 7, "1", _PALE))
    parts.append(_text(right, HEIGHT - 7, f"epoch {last}", f"{_END} {_PALE}"))
    placed = [(_LEFT + width * (epoch - 1) / (last - 1), base - height * value / top) for epoch, value in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    x, y = placed[-1]
    label = form.format(points[-1][1])
    parts.append(f'<polyline points="{line}" fill="none" style="stroke:{color}" stroke-width="2"/>')
    parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" style="fill:{color}"/>')
    parts.append(_text(right, 14, label, f'{_END} font-weight="600" style="fill:{color}"'))
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" style="max-width:100%" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{title}: {label}" fill="currentColor" font-size="11">{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, text: str, attributes: str) -> str:
    return f'<text x="{x}" y="{y}" {attributes}>{text}</text>'


def _round_up(value: float) -> float:
    """Round up to 0.1, 0.2, 0.5, 1, 2, 5, …, so that the axis seldom changes."""
    decade = 10.0 ** math.floor(math.log10(max(value, 0.1)))
    return next(step * decade for step in (1, 2, 5, 10) if value <= step * decade * (1 + 1e-9))
