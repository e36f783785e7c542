"""Tests of shared components, the run table and curves."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ipywidgets import Dropdown, HBox, Text, VBox

from svetlana_jupyter.core.classes import ClassScheme
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.jobs import JobState, format_duration
from svetlana_jupyter.project.runs import Run
from svetlana_jupyter.widgets.components import (
    ClassButtons,
    JobProgress,
    StatusLine,
    handle_in_order,
    html_table,
    set_options,
)
from svetlana_jupyter.widgets.panel import catch_errors
from svetlana_jupyter.widgets.training_results import RunTable, curves

NASTY = "<script>alert('x')</script> \"quoted\" & 🧬"


@pytest.fixture
def rows():
    """Class rows that record their calls."""
    calls = []
    made = ClassButtons(act=calls.append, recolor=lambda *arguments: calls.append(arguments))
    made.calls = calls
    return made


def test_present_and_future_children_are_handled_in_the_main_thread():
    present, future, other = Text(), Text(), Text()
    box = VBox([HBox([present])])
    handle_in_order(box)
    box.children = (*box.children, HBox())
    box.children[1].children = (future,)
    for widget in (box, present, future):
        assert widget.comm._reply_subshell_for({}, "a subshell") is None
    assert not hasattr(other.comm, "_reply_subshell_for")


def test_a_class_button_calls_its_action_with_the_class(rows):
    classes = ClassScheme().with_added(["resting", "active"])
    rows.show(classes, {1: "12", 2: "3"}, chosen=2)
    rows.row(2).button.click()
    assert rows.calls == ["active"]
    assert "sv-chosen" in rows.row(2).button._dom_classes
    assert "sv-chosen" not in rows.row(1).button._dom_classes


def test_rows_are_reused_while_classes_are_renamed_recolored_and_added(rows):
    classes = ClassScheme().with_added(["resting"])
    rows.show(classes, {})
    row = rows.row(1)
    rows.show(classes.with_renamed("resting", "quiet").with_recolored("quiet", "#123456").with_added(["active"]), {})
    assert rows.row(1) is row
    assert (row.button.description, row.picker.value) == ("quiet", "#123456")
    assert len(rows.lines.children) == 2
    assert rows.calls == []


def test_picking_a_color_recolors_the_class(rows):
    rows.show(ClassScheme().with_added(["resting"]), {})
    rows.row(1).picker.value = "#0000ff"
    assert rows.calls == [("resting", "#0000ff")]


def test_all_texts_are_escaped(rows):
    classes = ClassScheme().with_added([NASTY])
    settings = {"preset": "default", "architecture": NASTY}
    run = Run("0001", "2026-01-01T00:00:00+00:00", settings, {}, {}, "", [], 1.0, stopped=False, note="")
    unscored = SimpleNamespace(network=None, forest=None)
    runs = type("Runs", (list,), {"score": staticmethod(lambda run: unscored)})([run])
    background = SimpleNamespace(is_scoring=lambda run: False)
    project = SimpleNamespace(runs=runs, current_run="0001", background=background)
    status, runs = StatusLine(), RunTable(project, choose=lambda name: None)
    status.warn(NASTY)
    runs.show()
    rows.show(classes, {})
    shown = status.value + html_table([NASTY], [[NASTY], [next(iter(classes))]]) + runs.children[1].children[1].value
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;") == 5
    assert "🧬" in shown
    assert rows.row(1).button.description == NASTY  # a button's text is never markup


def test_an_expected_error_is_shown_as_it_is():
    status = StatusLine()

    def refuse():
        raise InputError("Masks must be integers.")

    catch_errors(refuse, status)()
    assert status.text == "Masks must be integers."
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


def test_job_progress_shows_the_time_left_and_stops():
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


def test_a_new_job_can_be_stopped_after_a_stopped_one():
    bar = JobProgress(stop=lambda: None)
    bar.show(JobState("training"))
    bar.show(JobState("training", stopping=True))
    bar.show(None)
    bar.show(JobState("prediction"))
    assert not bar.stop.disabled


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1 s"), (89, "89 s"), (91, "2 min"), (7200, "2 h 0 min")])
def test_durations_are_rounded(seconds, text):
    assert format_duration(seconds) == text


def test_the_loss_curve_falls_from_left_to_right_on_a_fixed_axis():
    drawing = curves([(1, 1.0, None), (2, 0.5, 0.5), (3, 0.25, 1.0)], total=9)
    line = drawing.split('<polyline points="')[1].split('"')[0]
    x, y = zip(*(map(float, point.split(",")) for point in line.split()))
    assert list(x) == sorted(x)
    assert list(y) == sorted(y)  # rows are counted downwards
    assert "epoch 9" in drawing
    assert max(x) < 440 / 2  # three of nine epochs
    assert drawing.count("<polyline") == 2
    assert ">100%<" in drawing


def test_a_sentence_takes_the_place_of_a_score_without_values():
    assert curves([], total=40) == ""
    drawing = curves([(1, 1.0, None), (2, 0.5, None)], total=9)
    assert drawing.count("<svg") == drawing.count("<polyline") == 1
    assert drawing.count("cross-validation scores the run at the end") == 1
    assert "cross-validation" not in curves([(1, 1.0, None), (2, 0.5, 0.5)], total=9)


def test_losses_that_are_not_finite_are_left_out():
    drawing = curves([(1, 1.0, None), (2, float("nan"), None), (3, float("inf"), None)], total=3)
    assert "nan" not in drawing
    assert "inf" not in drawing


def test_options_of_a_dropdown_keep_a_value_that_remains():
    dropdown = Dropdown(options=["a", "b"], value="b")
    set_options(dropdown, ["b", "c"])
    assert dropdown.value == "b"
    set_options(dropdown, [("all", ""), ("c", "c")])
    assert dropdown.value == ""
    set_options(dropdown, [])
    assert dropdown.value is None
