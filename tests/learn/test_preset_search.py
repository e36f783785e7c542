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
from svetlana_jupyter.learn.preset_search import SearchResult, SearchStopped, run_tasks, search, subsample_objects
from svetlana_jupyter.learn.search_plan import MIN_FIRST_STEPS
from svetlana_jupyter.learn.training import never_stop
from svetlana_jupyter.samples import stripes

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _without_heartbeats(monkeypatch) -> None:
    monkeypatch.setattr(crew, "HEARTBEAT_SECONDS", 1e9)


def returning(compute):
    """Return a task of one step that returns what ``compute`` returns."""

    def task(stop):
        yield
        return compute()

    return task


@pytest.mark.parametrize("workers", [1, 3])
def test_every_task_returns_its_result_with_its_number(workers):
    tasks = [returning(lambda number=number: number**2) for number in range(7)]
    results = [result for result in run_tasks(tasks, workers, never_stop) if result is not None]
    assert dict(results) == {number: number**2 for number in range(7)}
    assert list(run_tasks([], workers, never_stop)) == []


def test_a_single_worker_does_one_step_at_a_time_in_the_calling_thread():
    threads = []

    def task(stop):
        for _ in range(3):
            threads.append(threading.current_thread())
            yield

    steps = run_tasks([task], 1, never_stop)
    assert next(steps) is next(steps) is None
    assert threads == [threading.current_thread()] * 2


def test_two_workers_run_at_the_same_time():
    barrier = threading.Barrier(2, timeout=60)
    assert len(list(run_tasks([returning(barrier.wait)] * 2, 2, never_stop))) == 2


def run_until_stopped(started: threading.Event, ended: threading.Event):
    def task(stop):
        started.set()
        while not stop():
            yield
        ended.set()

    return task


def test_stopping_ends_the_running_task_and_starts_no_other():
    started, ended, started_tasks = threading.Event(), threading.Event(), []
    tasks = [run_until_stopped(started, ended), returning(lambda: started_tasks.append(True))]
    assert list(run_tasks(tasks, 1, started.is_set)) == []
    assert ended.is_set()
    assert not started_tasks


def test_stopping_ends_the_tasks_in_threads():
    started, ended = threading.Event(), threading.Event()
    assert list(run_tasks([run_until_stopped(started, ended)] * 2, 2, started.is_set)) == []
    assert ended.is_set()


def test_an_error_ends_other_tasks_and_is_raised():
    started, ended = threading.Event(), threading.Event()

    def fail() -> None:
        started.wait(60)
        raise ValueError("no good")

    with pytest.raises(ValueError, match="no good"):
        list(run_tasks([run_until_stopped(started, ended), returning(fail)], 2, never_stop))
    assert ended.is_set()


def test_closing_the_generator_ends_running_tasks():
    started, ended = threading.Event(), threading.Event()
    running = run_tasks([returning(lambda: 1), run_until_stopped(started, ended)], 2, never_stop)
    assert next(running) == (0, 1)
    running.close()
    assert not started.is_set() or ended.is_set()


def test_heartbeats_are_sent_while_tasks_run(monkeypatch):
    monkeypatch.setattr(crew, "HEARTBEAT_SECONDS", 0.0)
    heartbeat_seen = threading.Event()
    running = run_tasks([returning(lambda: heartbeat_seen.wait(60))] * 2, 2, never_stop)
    assert next(running) is None
    heartbeat_seen.set()
    assert sorted(result for result in running if result is not None) == [(0, True), (1, True)]


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


def search_among(samples_by_preset: dict[str, TrainingData], **options) -> Iterator:
    """Search with data that were collected already."""

    def collect(names):
        yield {name: samples_by_preset[name] for name in names}

    settings = {name: samples.settings for name, samples in samples_by_preset.items()}
    return search(settings, collect, keep_epochs=True, **options)


def test_a_search_in_the_calling_thread_leaves_its_number_of_torch_threads(monkeypatch):
    threads = [3]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    run_search(collected(("default", "forest")))
    assert 1 in threads
    assert threads[-1] == 3


def run_search(samples_by_preset: dict[str, TrainingData], **options) -> SearchResult:
    (*_, last) = search_among(samples_by_preset, **options)
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
    return list(search_among(collected(), workers=2))


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
    assert not search_result.untried


def test_weak_candidates_are_dropped_after_a_short_training(search_result):
    finalists = [candidate for candidate in search_result.candidates if candidate.is_finalist]
    assert {candidate.settings.epochs for candidate in finalists if candidate.preset != "forest"} == {QUICK.epochs}
    dropped = [candidate for candidate in search_result.candidates if not candidate.is_finalist]
    assert len(finalists) == 3, "two networks and the forest"
    assert {candidate.settings.epochs for candidate in dropped} == {2}


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
    assert done[-1] == pytest.approx(steps[-1].total)
    assert steps[0].text == "comparing preset forest: 1 of 2 trainings"
    assert steps[2].text == "comparing 4 presets, best so far: forest: 1 of 8 trainings"
    assert [step.text.split(": ")[-1] for step in steps[-2:]] == ["1 of 2 trainings", "2 of 2 trainings"]


def test_progress_is_weighted_by_the_cost_of_each_training(monkeypatch):
    def diverging_fit(samples: TrainingData, stop=never_stop):
        raise ClassifierError("training diverged")  # before the first epoch, so that whole trainings are counted

    monkeypatch.setattr(searching, "fit", diverging_fit)
    samples_by_preset = collected(("default", "oriented", "free", "plain"))
    expensive = samples_by_preset["plain"]
    samples_by_preset["plain"] = replace(expensive, settings=expensive.settings.changed(steps=10 * QUICK.steps))
    *steps, last = search_among(samples_by_preset)
    shares = np.diff([0, *(step.done for step in steps)])
    for default, oriented, free, plain in (shares[:4], shares[4:8]):  # both folds, in the order of the candidates
        assert default == pytest.approx(oriented)
        assert default == pytest.approx(free, rel=0.1)
        assert plain == pytest.approx(10 * default, rel=0.15)
    assert steps[-1].done == pytest.approx(steps[-1].total)
    assert steps[0].total > steps[-1].total, "the most expensive networks are expected until the first round ends"
    assert "plain" not in [candidate.preset for candidate in last.candidates if candidate.is_finalist]


def test_progress_is_reported_within_a_training(monkeypatch):
    monkeypatch.setattr(crew, "HEARTBEAT_SECONDS", 0.0)
    monkeypatch.setattr(crew, "POLL_SECONDS", 0.001)
    *steps, last = search_among(collected(("default", "oriented")))
    done = [step.done for step in steps]
    assert isinstance(last, SearchResult)
    assert done == sorted(done)
    assert done[-1] == pytest.approx(steps[-1].total)
    assert len(set(done)) > 4, "there are four trainings, of six epochs each"
    assert steps[0].text == "comparing preset default: 0 of 2 trainings"


@pytest.mark.parametrize(("stage", "best"), [("1 of 6 trainings", None), ("2 of 8 trainings", "forest")])
def test_a_stop_ends_the_search_with_the_best_candidate_so_far(stage, best):
    assert list(search_among(collected(), stop=lambda: True)) == [], "nothing was trained yet"
    received = []
    candidates = collected() if best else collected(("default", "oriented", "free"))
    events = search_among(candidates, stop=lambda: bool(received) and stage in received[-1].text)
    received.extend(iter(lambda: next(events, None), None))
    *progress, last = received
    assert all(isinstance(event, WorkProgress) for event in progress)
    assert [stage in event.text for event in progress].count(True) == 1, "nothing is yielded after the stop"
    assert isinstance(last, SearchStopped)
    assert last.preset == (best or "default"), "only the forest was trained in every fold"
    samples = candidates[last.preset]
    assert last.settings == samples.settings
    assert last.fitted.stopped
    assert last.fitted.n == len(samples) if best else 0 < last.fitted.n < len(samples)
    assert last.finished >= 1
    predicted = predicted_probabilities(last.fitted.classifier, samples, samples.classes)
    assert predicted.shape == (len(samples), len(samples.classes))


def easy(names: tuple[str, ...]) -> dict[str, TrainingData]:
    """Return data in which a measurement is the class."""
    several = collected(names)
    forest = several["forest"]
    return several | {"forest": replace(forest, inputs=np.repeat(forest.targets[:, None], 3, 1).astype(np.float32))}


def test_no_patch_is_cut_and_no_network_trained_if_a_forest_leaves_nothing_to_gain():
    several, requested = easy(PRESET_NAMES), []

    def collect(names):
        requested.append(names)
        yield {name: several[name] for name in names}

    settings = {name: samples.settings for name, samples in several.items()}
    *_, result = search(settings, collect)
    assert requested == [["forest"]]
    assert [candidate.preset for candidate in result.candidates] == ["forest"]
    assert accuracy(result.nested_table) == 1
    assert result.untried == ("default", "oriented", "free", "plain")


def test_what_can_be_gained_is_weighed_against_the_time_of_the_networks(monkeypatch):
    several = easy(("oriented", "forest"))
    monkeypatch.setattr(searching, "GAIN_PER_SECOND", 1e-9)
    assert not run_search(several).untried
    monkeypatch.setattr(searching, "GAIN_PER_SECOND", 1e9)
    hopeless = collected(("oriented", "forest"))
    assert run_search(hopeless).untried == ("oriented",)


def test_the_second_finalist_is_trained_only_if_the_first_leaves_something_to_gain(monkeypatch):
    def quick_fit(samples: TrainingData, stop=never_stop):
        trained.append((samples.settings.preset, samples.settings.epochs))
        return fit(samples, stop)

    trained, fit = [], searching.fit
    monkeypatch.setattr(searching, "fit", quick_fit)
    several = collected(("oriented", "plain", "forest"))
    settings = several["oriented"].settings.changed(epochs=30)
    several = {name: replace(one, settings=one.settings.changed(epochs=30)) for name, one in several.items()}
    several["plain"] = replace(several["plain"], settings=several["plain"].settings.changed(steps=500))
    monkeypatch.setattr(searching, "GAIN_PER_SECOND", 0.002)
    result = run_search(several)
    assert [candidate.preset for candidate in result.candidates] == ["oriented", "forest"]
    assert result.untried == ("plain",)
    assert ("oriented", settings.epochs) in trained


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
    targets = np.where(np.arange(25) < 21, 1, 2)
    chosen = subsample_objects(targets, seed=0)
    assert (np.diff(chosen) > 0).all()
    assert np.bincount(targets[chosen]).tolist() == [0, 20, 4]


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
