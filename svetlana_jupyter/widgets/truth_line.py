"""Line that states which classifier is shown, and how good it is."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from ipywidgets import HTML, HBox

from svetlana_jupyter.project.run_store import LIVE
from svetlana_jupyter.widgets.call_names import name_controls
from svetlana_jupyter.widgets.components import JobProgress, button, error_text, muted
from svetlana_jupyter.widgets.panel import Watcher, catch_errors
from svetlana_jupyter.widgets.scheduling import KeyPause, LatestQuestion

if TYPE_CHECKING:
    from collections.abc import Callable

    from svetlana_jupyter.core.stats.metrics import Estimate
    from svetlana_jupyter.project.live import LiveState
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.project.runs import Run
    from svetlana_jupyter.widgets.components import StatusLine

_SHORT_SOURCE = 60  # characters of a source that fit into the line; the tooltip has the whole text


class TruthLine(HBox):
    """Line of truth, with the progress of the running job at its right.

    Parameters
    ----------
    project : Project
    stop : callable
        Called when the user stops the job.
    status : StatusLine
        Displays errors, and the name of a kept run.

    Attributes
    ----------
    text : HTML
    back : Button
        Shows the live predictions again; displayed while a stored run is shown.
    keep : Button
        Stores the live predictions as a run; displayed while they are shown.
    job : JobProgress
    """

    def __init__(self, project: Project, stop: Callable[[], None], status: StatusLine) -> None:
        self._project = project
        self._score: tuple[str, str] = "", ""  # name of a stored run, and its score as HTML
        self._latest: LatestQuestion[Run] = LatestQuestion(
            lambda run: (run.name, stored_score(project, run)), self._show_score, 0.2, self._show_error
        )
        self.text = HTML(layout={"margin": "0", "flex": "1 1 auto", "min_width": "0"})
        self.job = JobProgress(stop)
        choose = catch_errors(lambda: project.runs.choose(LIVE), status)
        self.back = button(choose, "Show live", "", "Show the live predictions instead of this run", width="auto")
        tip = "Store these predictions and their classifier as a numbered run, which later labels do not change"
        self._status, self._keeps_run = status, False
        self.keep = button(catch_errors(self._keep, status), "Keep as run", "", tip, width="auto")
        super().__init__([self.text, self.back, self.keep, self.job])
        self.add_class("sv-truth")
        self._watcher = Watcher(status)
        redraw = KeyPause(catch_errors(self._draw, status)).restart
        self._watcher.observe(project, redraw, "live_state", "current_run", "annotations_version", "images_version")
        self._watcher.observe(project, self._ask_for_score, "runs_version", "current_run")
        self._watcher.observe(project, self._show_kept, "status")
        self._watcher.observe(project, self._show_job, "job")
        self._show_job()
        self._ask_for_score()
        self._draw()

    def close(self) -> None:
        """Stop observing the project, and remove the line."""
        self._watcher.close()
        super().close()

    def _keep(self) -> None:
        self._keeps_run = True
        try:
            self._project.background.keep_live()
        except Exception:  # nothing was started
            self._keeps_run = False
            raise

    def _show_kept(self) -> None:
        if self._keeps_run:
            self._status.say(self._project.status)

    def _show_job(self) -> None:
        self._keeps_run &= self._project.job is not None
        self.job.show(self._project.job)
        self.keep.disabled = self._project.job is not None

    def _draw(self) -> None:
        project, state = self._project, self._project.live.state
        is_stored = bool(project.current_run) and project.current_run != LIVE
        self.back.layout.display = "" if is_stored and state.stage else "none"
        self.keep.layout.display = "" if project.current_run == LIVE and state.stage else "none"
        if is_stored:
            run = project.runs.current
            score = self._score[1] if self._score[0] == run.name else ""
            parts = [count_of_labels(sum(run.labels.values())), *([score] if score else [])]
        else:
            parts = live_parts(state)
        parts += [detailed(project.runs.current_reason)] if project.runs.current_reason else []
        self.text.value = line_html(f"Run {run.name}" if is_stored else "Live" if state.stage else "", parts)

    def _ask_for_score(self) -> None:
        name = self._project.current_run
        self._latest.ask(self._project.runs.current if name and name != LIVE else None)

    def _show_score(self, answer: tuple[str, str]) -> None:
        self._score = answer
        self._draw()

    def _show_error(self, run: Run, error: Exception) -> None:
        self._show_score((run.name, muted(error_text(error, f"Run {run.name} cannot be evaluated"))))


def line_html(chip: str, parts: list[str]) -> str:
    """Return the line of truth as HTML; ``parts`` are HTML."""
    badge = f'<span class="sv-chip">{html.escape(chip)}</span>' if chip else ""
    plain = re.sub(r"<[^>]+>", "", " · ".join(parts))  # still escaped
    text = f"{badge}<span>{' · '.join(parts)}</span>"
    return f'<div class="sv-truth-text sv-two-lines" role="status" title="{plain}">{text}</div>'


def detailed(text: str) -> str:
    """Return text as HTML; narrow pages show it only up to its explanation.

    >>> detailed("provisional: features of 2 of 9 objects")
    '<span class="sv-muted">provisional<span class="sv-detail">: features of 2 of 9 objects</span></span>'
    """
    text = name_controls(text)
    brief = re.split(": |, because ", text, maxsplit=1)[0]
    more = f'<span class="sv-detail">{html.escape(text[len(brief) :])}</span>' if brief != text else ""
    return f'<span class="sv-muted">{html.escape(brief)}{more}</span>'


def count_of_labels(number: int) -> str:
    """Return a number of labels as HTML."""
    return f"<b>{number:,} label{'' if number == 1 else 's'}</b>"


def live_parts(state: LiveState) -> list[str]:
    """Return what the live classifier shows, as parts of HTML.

    >>> from svetlana_jupyter.project.live import LiveState
    >>> live_parts(LiveState(message="Label objects of two classes to see predictions."))
    ['Label objects of two classes to see predictions.']
    """
    if not state.stage:
        parts = [html.escape(state.message or "Label objects of two classes to see predictions.")]
    else:
        parts = [count_of_labels(state.labels), score_html(state.score, state.score_text)]
    if state.stage and state.changed is not None:
        parts.append(f"last label changed <b>{state.changed:,}</b> object{'' if state.changed == 1 else 's'}")
    if state.provisional and state.features_total:
        parts.append(detailed(f"provisional: features of {state.features_done:,} of {state.features_total:,} objects"))
    elif state.provisional:
        parts = [part.removesuffix(".") for part in parts]
        parts.append(muted("the features of the objects are being computed"))
    elif state.stage and state.missing:
        parts.append(muted(f"{state.missing:,} objects without features are not predicted"))
    return parts


def score_html(score: Estimate | None, source: str) -> str:
    """Return a score with its interval and its source as HTML."""
    tip = html.escape(source, quote=True)
    if score is None or not score.n:
        return f'<span title="{tip}">{detailed(source or "no score yet")}</span>'
    short = source if len(source) <= _SHORT_SOURCE else f"{source[:_SHORT_SOURCE].rsplit(' ', 1)[0]} …"
    interval = f"{100 * score.low:.0f}–{100 * score.high:.0f} %{f', {short}' if short else ''}"
    text = f"balanced accuracy <b>{score.value:.0%}</b>".replace("%", " %")
    return f'<span title="{tip}">{text} <span class="sv-muted">({html.escape(interval)})</span></span>'


def stored_score(project: Project, run: Run) -> str:
    """Return the score of a stored run as HTML; reads its held-out predictions."""
    score = project.runs.score(run)
    return score_html(score.network.balanced_accuracy if score.network else None, score.source)
