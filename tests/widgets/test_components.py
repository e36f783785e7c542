"""The parts of the panels: what they show of a project, and that text stays text."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from svetlana_jupyter.core.classes import ClassScheme
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.jobs import JobState
from svetlana_jupyter.project.runs import Run
from svetlana_jupyter.widgets.components import ClassButtons, JobProgress, StatusLine, format_duration, html_table
from svetlana_jupyter.widgets.panel import catch_errors
from svetlana_jupyter.widgets.run_views import RunTable, curves

NASTY = "<script>alert('x')</script> \"quoted\" & 🧬"


@pytest.fixture
def rows():
    """Class rows that write down what is asked of them."""
    asked = []
    made = ClassButtons(act=asked.append, recolor=lambda *what: asked.append(what))
    made.asked = asked
    return made


def test_a_class_button_names_its_class(rows):
    classes = ClassScheme().adding(["resting", "active"])
    rows.show(classes, {1: "12", 2: "3"}, chosen=2)
    rows.row(2).button.click()
    assert rows.asked == ["active"]
    assert "sv-chosen" in rows.row(2).button._dom_classes
    assert "sv-chosen" not in rows.row(1).button._dom_classes


def test_rows_are_kept_while_classes_are_renamed_recoloured_and_added(rows):
    classes = ClassScheme().adding(["resting"])
    rows.show(classes, {})
    row = rows.row(1)
    rows.show(classes.with_renamed("resting", "quiet").with_recolored("quiet", "#123456").adding(["active"]), {})
    assert rows.row(1) is row
    assert (row.button.description, row.picker.value) == ("quiet", "#123456")
    assert len(rows.lines.children) == 2
    assert rows.asked == []


def test_picking_a_colour_recolours_the_class(rows):
    rows.show(ClassScheme().adding(["resting"]), {})
    rows.row(1).picker.value = "#0000ff"
    assert rows.asked == [("resting", "#0000ff")]


def test_no_text_becomes_markup(rows):
    classes = ClassScheme().adding([NASTY])
    settings = {"preset": "default", "architecture": NASTY}
    run = Run("0001", "2026-01-01T00:00:00+00:00", settings, {}, {}, "", [], 1.0, stopped=False, note="")
    unscored = SimpleNamespace(network=None, forest=None)
    project = SimpleNamespace(runs=[run], current_run="0001", score_run=lambda run: unscored)
    status, runs = StatusLine(), RunTable(project, choose=lambda name: None)
    status.warn(NASTY)
    runs.show()
    rows.show(classes, {})
    shown = status.value + html_table([NASTY], [[NASTY], [next(iter(classes))]]) + runs.children[1].children[1].value
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;") == 5
    assert "🧬" in shown
    assert rows.row(1).button.description == NASTY  # a button's text is never markup


def test_an_expected_error_is_shown_as_its_sentence():
    status = StatusLine()

    def refuse():
        raise InputError("masks must be integers.")

    catch_errors(refuse, status)()
    assert status.text == "masks must be integers."
    assert "sv-trouble" in status.value


def test_an_unexpected_error_is_shown_and_logged_with_its_traceback(caplog):
    status = StatusLine()

    def fail():
        return 1 / 0

    catch_errors(fail, status)()
    assert status.text.startswith("Something went wrong: ")
    assert "division by zero" in status.text
    assert "ZeroDivisionError" in caplog.text
    assert "Traceback" in caplog.text


def test_the_job_bar_tells_progress_and_time_left_and_stops():
    stopped = []
    bar = JobProgress(stop=lambda: stopped.append(True))
    assert bar.layout.visibility == "hidden"
    bar.show(JobState("training", done=3, total=12, text="epoch 3 of 12", seconds_left=200))
    assert bar.bar.value == 0.25
    assert "epoch 3 of 12 · 3 min left" in bar.text.value
    bar.stop.click()
    assert stopped
    bar.show(JobState("training", done=3, total=12, stopping=True))
    assert bar.stop.disabled
    bar.show(None)
    assert bar.layout.visibility == "hidden"


def test_a_new_job_may_be_stopped_after_the_last_one_was():
    bar = JobProgress(stop=lambda: None)
    bar.show(JobState("training"))
    bar.show(JobState("training", stopping=True))
    bar.show(None)
    bar.show(JobState("prediction"))
    assert not bar.stop.disabled


@pytest.mark.parametrize(("seconds", "said"), [(0.2, "1 s"), (89, "89 s"), (91, "2 min"), (7200, "2 h 0 min")])
def test_time_left_is_said_as_one_would_aloud(seconds, said):
    assert format_duration(seconds) == said


def test_the_loss_curve_falls_from_left_to_right_on_a_fixed_axis():
    drawing = curves([1, 2, 3], [1.0, 0.5, 0.25], [None, 0.5, 1.0], total=9)
    line = drawing.split('<polyline points="')[1].split('"')[0]
    x, y = zip(*(map(float, point.split(",")) for point in line.split()))
    assert list(x) == sorted(x)
    assert list(y) == sorted(y)  # the screen's rows grow downwards
    assert "epoch 9" in drawing
    assert max(x) < 472 / 2  # three of nine epochs
    assert drawing.count("<polyline") == 2
    assert ">100%<" in drawing


def test_curves_without_any_value_have_their_axes():
    drawing = curves([], [], [], total=40)
    assert "epoch 40" in drawing
    assert "polyline" not in drawing


def test_a_loss_that_is_not_finite_is_left_out_of_the_curve():
    drawing = curves([1, 2, 3], [1.0, float("nan"), float("inf")], [None, None, None], total=3)
    assert "nan" not in drawing
    assert "inf" not in drawing
