"""Parallel tasks and preset search.

The number of training steps depends on the plan, not on the measured time, so that results are reproducible.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch

from svetlana_jupyter.core.allowed_cues import candidate_presets
from svetlana_jupyter.core.io.image_pair import open_pair
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.core.stats.model_selection import brier_skill, nested_selection
from svetlana_jupyter.errors import ClassifierError
from svetlana_jupyter.learn import preset_search as crew
from svetlana_jupyter.learn import preset_search as searching
from svetlana_jupyter.learn.cross_validation import predicted_probabilities
from svetlana_jupyter.learn.dataset import (
    AnnotatedImage,
    TrainingData,
    WorkProgress,
    collect_for_each,
    max_objects_in_memory,
)
from svetlana_jupyter.learn.preset_search import (
    BUDGET_SECONDS,
    MIN_FIRST_STEPS,
    SearchResult,
    SearchStopped,
    affordable_candidates,
    plan_search,
    run_in_threads,
    search,
    step_seconds,
)
from svetlana_jupyter.learn.training import never_stop
from svetlana_jupyter.samples import stripes

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _without_heartbeats(monkeypatch) -> None:
    monkeypatch.setattr(crew, "HEARTBEAT_SECONDS", 1e9)


@pytest.mark.parametrize("workers", [1, 3])
def test_every_task_returns_its_result_with_its_number(workers):
    tasks = [lambda stop, number=number: number**2 for number in range(7)]
    assert dict(run_in_threads(tasks, workers, never_stop)) == {number: number**2 for number in range(7)}
    assert list(run_in_threads([], workers, never_stop)) == []


def test_two_workers_run_at_the_same_time():
    barrier = threading.Barrier(2, timeout=60)
    assert len(list(run_in_threads([lambda stop: barrier.wait()] * 2, 2, never_stop))) == 2


def run_until_stopped(started: threading.Event, ended: threading.Event):
    def task(stop) -> None:
        started.set()
        while not stop():
            pass
        ended.set()

    return task


def test_stopping_ends_running_tasks_and_starts_no_others():
    started, ended, started_tasks = threading.Event(), threading.Event(), []
    tasks = [run_until_stopped(started, ended), lambda stop: started_tasks.append(True)]
    assert list(run_in_threads(tasks, 1, started.is_set)) == []
    assert ended.is_set()
    assert not started_tasks


def test_an_error_ends_other_tasks_and_is_raised():
    started, ended = threading.Event(), threading.Event()

    def fails(stop) -> None:
        started.wait(60)
        raise ValueError("no good")

    with pytest.raises(ValueError, match="no good"):
        list(run_in_threads([run_until_stopped(started, ended), fails], 2, never_stop))
    assert ended.is_set()


def test_closing_the_generator_ends_running_tasks():
    started, ended = threading.Event(), threading.Event()
    running = run_in_threads([lambda stop: 1, run_until_stopped(started, ended)], 2, never_stop)
    assert next(running) == (0, 1)
    running.close()
    assert not started.is_set() or ended.is_set()


def test_heartbeats_are_sent_while_tasks_run(monkeypatch):
    monkeypatch.setattr(crew, "HEARTBEAT_SECONDS", 0.0)
    heartbeat_seen = threading.Event()
    running = run_in_threads([lambda stop: heartbeat_seen.wait(60)], 1, never_stop)
    assert next(running) is None
    heartbeat_seen.set()
    assert [result for result in running if result is not None] == [(0, True)]


QUICK = TrainingSettings(epochs=6, steps=6, depth=2, width=8, folds=2, trees=10, patches={"size": 34, "sampling": 17})
PRESET_NAMES = ("default", "oriented", "free", "plain", "forest")


def annotated_image() -> AnnotatedImage:
    sample = stripes(0)
    pair = open_pair("stripes", sample.image, sample.mask, axes="yx")
    return pair, index_objects(pair.mask), pd.Series(sample.classes + 1, index=np.arange(1, len(sample.classes) + 1))


def collected(names: tuple[str, ...] = PRESET_NAMES) -> dict[str, TrainingData]:
    """Return the training data of each preset for classes that differ only in stripe direction."""
    settings_by_name = {name: settings for name, settings in candidate_presets(QUICK).items() if name in names}
    *_, several = collect_for_each([annotated_image()], list(settings_by_name.values()))
    return dict(zip(settings_by_name, several, strict=True))


def run_search(samples_by_preset: dict[str, TrainingData], **options) -> SearchResult:
    (*_, last) = search(samples_by_preset, keep_epochs=True, **options)
    assert isinstance(last, SearchResult)
    return last


@pytest.fixture(scope="module", autouse=True)
def _short_first_round() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MIN_FIRST_STEPS, 2, 12)
        patch.setattr(crew, "HEARTBEAT_SECONDS", 1e9)
        yield


@pytest.fixture(scope="module")
def search_events(_short_first_round: None) -> list[WorkProgress | SearchResult]:
    return list(search(collected(), keep_epochs=True, workers=2))


@pytest.fixture(scope="module")
def search_result(search_events) -> SearchResult:
    return search_events[-1]


def accuracy(table: pd.DataFrame) -> float:
    return float((table["predicted"] == table["truth"]).mean())


def test_the_selected_preset_preserves_the_direction_of_stripes(search_result):
    assert search_result.candidates[0].preset in ("oriented", "plain")
    assert search_result.candidates[0].settings.augmentation.rotation in ("half_turns", "none")
    assert accuracy(search_result.candidates[0].table) >= 0.85
    by_name = {candidate.preset: candidate for candidate in search_result.candidates}
    assert set(by_name) == set(PRESET_NAMES)
    assert accuracy(by_name["free"].table) < 0.8


def test_weak_candidates_are_dropped_after_a_short_training(search_result):
    finalists = [candidate for candidate in search_result.candidates if candidate.is_finalist]
    assert {candidate.settings.epochs for candidate in finalists if candidate.preset != "forest"} == {QUICK.epochs}
    (dropped,) = [candidate for candidate in search_result.candidates if not candidate.is_finalist]
    assert len(finalists) == 4
    assert dropped.settings.epochs == 2


def test_the_reported_score_is_that_of_nested_cross_validation(search_result):
    finalists = {candidate.preset: candidate for candidate in search_result.candidates if candidate.is_finalist}
    probabilities = {
        name: finalists[name].table[["p_1", "p_2"]].to_numpy(float) for name in PRESET_NAMES if name in finalists
    }
    truth, folds = (search_result.nested_table["truth"] - 1).to_numpy(), search_result.nested_table["fold"].to_numpy()
    expected = nested_selection(truth, folds, probabilities)
    np.testing.assert_allclose(search_result.nested_table[["p_1", "p_2"]], expected, atol=1e-6)
    for name, p in probabilities.items():
        assert finalists[name].merit == pytest.approx(brier_skill(truth, p), abs=1e-6)


def test_the_result_does_not_depend_on_the_number_of_workers(search_result):
    before = torch.get_rng_state()
    again = run_search(collected(), workers=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert again.candidates[0].preset == search_result.candidates[0].preset
    for candidate, other in zip(search_result.candidates, again.candidates, strict=True):
        assert candidate.preset == other.preset
        pd.testing.assert_frame_equal(candidate.table, other.table)


def test_progress_increases_to_its_total_and_describes_the_step(search_events):
    *steps, _ = search_events
    assert all(isinstance(step, WorkProgress) for step in steps)
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert done[-1] == steps[-1].total
    assert steps[0].text == "trying 5 presets: 1 of 10 trainings"
    assert steps[-1].text == "comparing 3 presets: 6 of 6 trainings"


def test_progress_is_weighted_by_the_cost_of_each_training(monkeypatch):
    def diverging_fit(samples: TrainingData, stop=never_stop):
        raise ClassifierError("training diverged")  # before the first epoch, so that whole trainings are counted

    monkeypatch.setattr(searching, "fit", diverging_fit)
    samples_by_preset = collected(("default", "oriented", "free", "plain"))
    expensive = samples_by_preset["plain"]
    samples_by_preset["plain"] = replace(expensive, settings=expensive.settings.changed(steps=10 * QUICK.steps))
    *steps, last = search(samples_by_preset, keep_epochs=True)
    shares = np.diff([0, *(step.done for step in steps)])
    first = [shares[:4], shares[4:8]]  # both folds, in the order of the candidates
    for default, oriented, free, plain in first:
        assert default == oriented == free
        assert plain == pytest.approx(10 * default, rel=0.1)
    assert steps[-1].done == steps[-1].total
    first_total, later_total = {step.total for step in steps[:8]}, {step.total for step in steps[8:]}
    finalists = [candidate.preset for candidate in last.candidates if candidate.is_finalist]
    assert (first_total == later_total) == ("plain" in finalists), (
        "the dearest are expected to go on until the first round ends"
    )


def test_progress_is_reported_within_a_training(monkeypatch):
    monkeypatch.setattr(crew, "HEARTBEAT_SECONDS", 0.0)
    monkeypatch.setattr(crew, "POLL_SECONDS", 0.001)
    *steps, last = search(collected(("default", "oriented")), keep_epochs=True)
    done = [step.done for step in steps]
    assert isinstance(last, SearchResult)
    assert done == sorted(done)
    assert done[-1] == steps[-1].total
    assert len(set(done)) > 4, "there are four trainings, of six epochs each"
    assert steps[0].text == "comparing 2 presets: 0 of 4 trainings"


def test_a_stop_ends_the_search_with_the_best_candidate_so_far():
    assert list(search(collected(), stop=lambda: True)) == [], "nothing was trained yet"
    received = []
    candidates = collected()
    events = search(candidates, keep_epochs=True, stop=lambda: len(received) >= 3)
    received.extend(iter(lambda: next(events, None), None))
    *progress, last = received
    assert all(isinstance(event, WorkProgress) for event in progress)
    assert len(progress) == 3
    assert isinstance(last, SearchStopped)
    samples = candidates[last.preset]
    assert last.settings == samples.settings
    assert last.fitted.stopped
    assert 0 < last.fitted.n < len(samples)
    assert last.finished >= 1
    predicted = predicted_probabilities(last.fitted.classifier, samples, samples.classes)
    assert predicted.shape == (len(samples), len(samples.classes))


def test_few_candidates_are_all_trained_to_the_end():
    search_result = run_search(collected(("default", "oriented", "forest")))
    assert search_result.candidates[0].preset == "oriented"
    assert all(candidate.is_finalist for candidate in search_result.candidates)


def test_a_scarce_class_does_not_prevent_the_search_and_is_not_scored():
    samples_by_preset = collected(("oriented", "forest"))
    targets = samples_by_preset["forest"].targets.copy()
    targets[:3] = 9
    renamed = {name: replace(samples, targets=targets) for name, samples in samples_by_preset.items()}
    result = run_search(renamed)
    assert len(result.nested_table) == len(targets) - 3
    assert set(result.nested_table["truth"]) == {1, 2}
    for candidate in result.candidates:
        assert (candidate.table["p_9"] > 0).any(), "every fold was trained with the scarce class"


def test_a_diverging_candidate_does_not_end_the_search(monkeypatch):
    samples_by_preset = collected(("default", "oriented", "plain"))

    def diverging_fit(samples: TrainingData, stop=never_stop):
        if samples.settings.preset == "oriented":
            raise ClassifierError("training diverged")
        return fit(samples, stop)

    fit = searching.fit
    monkeypatch.setattr(searching, "fit", diverging_fit)
    search_result = run_search(samples_by_preset)
    by_name = {candidate.preset: candidate for candidate in search_result.candidates}
    assert search_result.candidates[0].preset == "plain"
    np.testing.assert_allclose(by_name["oriented"].table[["p_1", "p_2"]], 0.5)


def test_many_objects_are_subsampled_per_class(monkeypatch):
    monkeypatch.setattr(searching, "MAX_SEARCH_OBJECTS", 22)
    samples_by_preset = collected()
    first = samples_by_preset["default"]
    targets = np.where(np.arange(len(first)) < 21, 1, 2)
    search_result = run_search(
        {name: replace(samples_by_preset[name], targets=targets) for name in ("default", "forest")}
    )
    counts = search_result.nested_table["truth"].value_counts()
    assert counts[2] == 4
    assert counts[1] <= 20 < len(first)


def settings_of(ndim: int, **changes) -> TrainingSettings:
    sampling = (48, 48) if ndim == 2 else (24, 24, 24)
    return TrainingSettings(patches={"size": sampling, "sampling": sampling}, **changes)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_plan_stays_within_the_budget_and_scales_with_it(ndim, monkeypatch):
    wide = plan_search([settings_of(ndim)] * 7, 45, 1, 4, keep_epochs=False)
    assert wide.seconds <= BUDGET_SECONDS[ndim]
    assert 0 < wide.first_round_epochs < wide.epochs <= 40
    few = plan_search([settings_of(ndim)] * 2, 45, 1, 4, keep_epochs=False)
    assert few.epochs > wide.epochs
    assert few.finalists == 2
    monkeypatch.setitem(BUDGET_SECONDS, ndim, 1e9)
    assert plan_search([settings_of(ndim)] * 7, 45, 1, 4, keep_epochs=False).epochs == 40
    monkeypatch.setitem(BUDGET_SECONDS, ndim, 0.0)
    assert plan_search([settings_of(ndim)] * 7, 45, 1, 4, keep_epochs=False).epochs >= 4


def test_a_short_training_drops_no_candidate():
    short = plan_search([settings_of(2, epochs=1)] * 7, 45, 1, 4, keep_epochs=True)
    assert (short.first_round_epochs, short.epochs, short.finalists) == (1, 1, 7)


def test_given_epochs_are_kept():
    assert plan_search([settings_of(3, epochs=500)] * 7, 45, 1, 4, keep_epochs=True).epochs == 500


def test_planned_time_depends_on_steps_batch_size_and_views():
    standard = plan_search([settings_of(3)] * 3, 45, 1, 4, keep_epochs=True).seconds
    for more, costs in (({"steps": 40}, 1.5), ({"batch_size": 64}, 1.5), ({"views": 48}, 1.01)):
        assert (
            plan_search([settings_of(3)] * 2 + [settings_of(3, **more)], 45, 1, 4, keep_epochs=True).seconds
            > costs * standard
        )


def test_networks_much_slower_than_the_first_are_not_affordable(monkeypatch):
    standard, similar, slow = settings_of(3), settings_of(3, steps=19), settings_of(3, steps=60)
    forest = settings_of(3, architecture="forest")
    samples_by_preset = {"default": standard, "near": similar, "slow": slow, "forest": forest}
    for budget, names in ((1e9, [*samples_by_preset]), (1e-9, ["default", "near", "forest"])):
        monkeypatch.setitem(BUDGET_SECONDS, 3, budget)
        assert affordable_candidates(samples_by_preset, 45, 1) == names
    assert affordable_candidates({"default": slow, "plain": slow}, 45, 1) == ["default", "plain"]


def test_wider_networks_larger_patches_and_volumes_cost_more():
    costs = [
        step_seconds(settings_of(2, width=8), 1),
        step_seconds(settings_of(2), 1),
        step_seconds(settings_of(2), 4),
        step_seconds(settings_of(3), 4),
    ]
    assert costs == sorted(costs)
    assert costs[3] > 4 * costs[2]


def test_the_number_of_objects_in_memory_follows_from_the_patch_size():
    samples_by_preset = collected()
    several = [samples.settings for samples in samples_by_preset.values()]
    arrays = {
        samples.inputs.ctypes.data: samples.inputs for name, samples in samples_by_preset.items() if name != "forest"
    }
    bytes_per_object = sum(inputs.nbytes for inputs in arrays.values()) / len(samples_by_preset["forest"])
    assert max_objects_in_memory([annotated_image()], several, 2**24) == pytest.approx(
        2**24 / bytes_per_object, rel=0.1
    )
    forest = [samples_by_preset["forest"].settings]
    assert max_objects_in_memory([annotated_image()], forest, 2**24) >= 2**24, "of a forest, nothing is cut"
