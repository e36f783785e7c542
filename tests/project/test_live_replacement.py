"""Replacement of the shown run by a better one, which never leaves objects without predictions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from svetlana_jupyter.core import allowed_cues
from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.learn import preset_search
from svetlana_jupyter.learn.preset_search import SearchResult
from svetlana_jupyter.project import project as project_module
from svetlana_jupyter.project import training_job
from svetlana_jupyter.project.jobs import JobState
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.project.run_scoring import RunScored
from svetlana_jupyter.project.runs import held_out_file
from svetlana_jupyter.project.storage import write_parquet
from tests.project.test_live import label_some

if TYPE_CHECKING:
    import pandas as pd

    from svetlana_jupyter.project.runs import Run


@pytest.fixture
def poor(project: Project) -> Project:
    """Project whose live classifier knows nothing of held-out labels, and without work in the background."""
    project.settings = project.settings.changed(epochs=3, width=4, depth=2, folds=2, trees=10)
    label_some(project)
    project.live.update()
    show_held_out(project, 0.5)
    project._jobs.lane.begin_hold()
    return project


def show_held_out(project: Project, probability: float) -> None:
    """Let the live classifier predict the true class of every held-out label with this probability."""
    give_probability(project.live.result.held_out, probability)


def give_probability(held_out: pd.DataFrame, probability: float) -> pd.DataFrame:
    truth = np.eye(2)[held_out["truth"] - 1]
    held_out[["p_1", "p_2"]] = truth * probability + (1 - truth) * (1 - probability)
    return held_out


def store_held_out(run: Run, probability: float) -> None:
    """Let a stored run predict the true class of every held-out label with this probability."""
    write_parquet(held_out_file(run.path, "network"), give_probability(run.held_out(), probability))


def shown_runs(project: Project) -> list[tuple[str, bool]]:
    """Return a list of the runs that are shown from now on, and whether they predict every object."""
    shown: list[tuple[str, bool]] = []

    def note(change) -> None:
        shown.append((change["new"], bool(project.predictions()["predicted"].notna().all())))

    project.observe(note, "current_run")
    return shown


def select_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a comparison of presets store a forest first, and then select a network."""
    monkeypatch.setattr(allowed_cues, "CANDIDATE_PRESETS", ("forest", "default"))
    search = preset_search.search

    def select(*args, **options):
        for event in search(*args, **options):
            if isinstance(event, SearchResult):
                best = replace(event.candidates[0], preset="default")
                event = replace(event, candidates=type(event.candidates)([best, *event.candidates]))
            yield event

    monkeypatch.setattr(preset_search, "search", select)


@pytest.mark.parametrize("how", ["script", "panel", "predict"])
def test_a_comparison_of_presets_shows_its_last_run_once_that_is_predicted(poor, monkeypatch, how) -> None:
    select_the_network(monkeypatch)
    poor.settings = poor.settings.changed(preset="auto")
    shown, statuses = shown_runs(poor), []
    poor.observe(lambda change: statuses.append(change["new"]), "status")
    if how == "panel":
        poor.background.train()
        poor._jobs.wait(120)
    else:
        assert poor.train(predict=how == "predict").name == "0002"
    assert not poor.trouble
    assert [run.settings["preset"] for run in poor.runs] == ["forest", "default"]
    assert shown == [("0002", True)]
    reason = "Run 0002 replaced the live classifier, because it predicts 24 held-out labels better"
    assert poor.runs.current_reason.startswith(reason)
    assert any("live classifier stays until a score shows" in status for status in statuses)


def test_a_score_in_the_background_is_shown_to_a_script_once_the_images_are_predicted(poor) -> None:
    run = poor.train()
    assert list(poor._scorings._pending[run.name].events(lambda: False))  # scored and stored, but not yet predicted
    assert poor.predictions()["predicted"].notna().all()
    assert poor.current_run == run.name


def test_a_run_that_becomes_better_after_its_score_is_not_shown_without_predictions(poor) -> None:
    show_held_out(poor, 1.0)
    run = poor.train()
    scoring = poor._scorings._pending[run.name]
    events = poor._scorings._events(scoring, lambda: False)
    scored = next(event for event in events if isinstance(event, RunScored))
    show_held_out(poor, 0.5)
    poor._handle(scored)
    assert poor.current_run == "live"
    assert f"Choose run {run.name} to see its predictions." in poor.status


@pytest.mark.parametrize("why", ["stopped", "failed"])
def test_the_live_classifier_stays_if_a_better_run_could_not_predict_every_image(poor, monkeypatch, why) -> None:
    run = poor.train()

    def predict_nothing(task, stop):
        if why == "failed":
            raise InputError("P2_A1 could not be read.")
        poor.stop()
        yield from ()

    monkeypatch.setattr(project_module, "predict_images", predict_nothing)
    poor.evaluate(run.name)
    if why == "failed":
        assert poor.status.endswith("The live classifier stays. P2_A1 could not be read.")
    assert poor.current_run == "live"
    assert poor.predictions()["predicted"].notna().all()


def test_a_cancelled_training_in_the_background_shows_no_progress(poor) -> None:
    training = poor._background_training
    training._steps = iter(())
    training._show_wanted(JobState("training", text="comparing preset plain"))
    assert poor.scoring is not None
    training.cancel()
    assert poor.scoring is None
    training._show_wanted(JobState("training", text="comparing preset plain"))  # its event was on the way
    assert poor.scoring is None


@pytest.fixture
def replaced(poor: Project) -> Project:
    """Project whose run 0001 has replaced the live classifier."""
    poor.evaluate(poor.train().name)
    assert poor.current_run == "0001"
    return poor


def test_a_training_shows_its_run_instead_of_a_replaced_one_once_that_is_better_and_predicted(replaced) -> None:
    store_held_out(replaced.runs[0], 0.5)
    shown = shown_runs(replaced)
    run = replaced.train()
    assert replaced.status.endswith("Run 0001 stays until a score shows that the run is better.")
    assert run.name == "0002"
    assert replaced.predictions()["predicted"].notna().all()
    assert shown == [("0002", True)], "a script asks for predictions, so that the run is scored first"
    assert "Run 0002 replaced run 0001, because it predicts 24 held-out labels better" in replaced.runs.current_reason


@pytest.mark.parametrize(
    ("shown", "live", "better"),
    [(1.0, 0.5, "it"), (0.5, 1.0, "the live classifier")],
    ids=["the shown run is better", "the live classifier is better"],
)
def test_a_run_that_is_worse_than_the_shown_one_or_the_live_classifier_replaces_none(replaced, shown, live, better):
    store_held_out(replaced.runs[0], shown)
    show_held_out(replaced, live)
    replaced.evaluate(replaced.train().name)
    assert replaced.current_run == "0001"
    reason = f"{better} predicts 24 held-out labels better than run 0002 (log loss 0.00 against"
    assert f"Run 0001 stays, because {reason}" in replaced.status


def know_drawn_labels(project: Project, n: int) -> None:
    """Let the live classifier know only the first ``n`` labels, which were drawn at random."""
    held_out = project.live.result.held_out
    drawn = give_probability(held_out.copy(), 1.0)[:n]
    give_probability(held_out, 0.01)[:n] = drawn
    held_out["drawn"] = np.arange(len(held_out)) < n


def test_a_run_that_is_worse_on_labels_drawn_at_random_does_not_replace_the_live_classifier(poor) -> None:
    know_drawn_labels(poor, 10)
    run = poor.runs.get(poor.evaluate(poor.train().name).run)
    assert poor.current_run == "live"
    reason = "because it predicts 10 held-out labels drawn at random better than run 0001"
    assert f"The live classifier stays, {reason}" in poor.status
    know_drawn_labels(poor, 9)  # too few
    assert not poor._shown.why_not(run)


def test_the_live_classifier_returns_once_it_is_better_on_labels_drawn_at_random(replaced) -> None:
    know_drawn_labels(replaced, 9)
    replaced._shown.follow_live()
    assert replaced.current_run == "0001"
    know_drawn_labels(replaced, 10)
    replaced._shown.follow_live()
    assert replaced.current_run == "live"
    assert (
        "because it predicts 10 held-out labels drawn at random better (log loss 0.00" in replaced.runs.current_reason
    )


def test_the_live_classifier_returns_once_it_is_better_and_says_why(replaced) -> None:
    store_held_out(replaced.runs[0], 1.0)
    replaced.live.update()
    assert replaced.current_run == "0001"
    store_held_out(replaced.runs[0], 0.5)
    replaced.live.update()
    assert replaced.current_run == "live"
    reason = "The live classifier replaced run 0001, because it predicts 24 held-out labels better"
    assert replaced.runs.current_reason.startswith(reason)
    replaced.runs.choose("live")
    assert not replaced.runs.current_reason


def test_a_run_that_the_user_has_chosen_stays(replaced) -> None:
    replaced.runs.choose("0001")
    store_held_out(replaced.runs[0], 0.5)
    replaced.live.update()
    assert replaced.current_run == "0001"


def test_a_reopened_project_knows_why_a_run_is_shown(replaced) -> None:
    replaced.annotations.file.close()
    again = Project(replaced.path, annotator="ann")
    assert (again.current_run, again.runs.current_reason) == ("0001", replaced.runs.current_reason)
    assert again.runs.current_reason


def test_labels_of_another_mask_are_not_compared(replaced, wells) -> None:
    store_held_out(replaced.runs[0], 0.5)
    for name in ("P1_A1", "P1_A2"):
        mask = np.asarray(replaced.pair(name).mask)
        replaced.replace_mask(name, np.where(mask > 0, (mask + 1) % 12 + 1, 0).astype(mask.dtype))
    replaced.live.update()
    assert replaced.current_run == "0001"


def test_a_run_saved_after_a_full_disk_is_not_shown_before_it_has_predicted(poor, monkeypatch) -> None:
    def fail(folder):
        raise OSError("no space left")

    with monkeypatch.context() as full:
        full.setattr(training_job, "new_run", fail)
        with pytest.raises(ProjectError, match="Free disk space"):
            poor.train()
    shown = shown_runs(poor)
    run = poor.runs.save()
    assert poor.status.endswith("The live classifier stays until a score shows that the run is better.")
    assert poor.current_run == "live"
    poor.evaluate(run.name)
    assert shown == [(run.name, True)]
