"""Tasks run side by side, and stop when they are told to or one of them fails.

A search finds the preset that the classes need, in as many steps as were planned, whatever the clock says.
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
from svetlana_jupyter.core.io.image_pair import open_checked_pair
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.core.stats.model_selection import brier_skill, nested_selection
from svetlana_jupyter.errors import ClassifierError
from svetlana_jupyter.learn import preset_search as crew
from svetlana_jupyter.learn import preset_search as searching
from svetlana_jupyter.learn.dataset import AnnotatedImage, TrainingData, collect_for_each, max_objects_in_memory
from svetlana_jupyter.learn.preset_search import (
    BUDGET_SECONDS,
    MIN_FIRST_STEPS,
    SearchProgress,
    SearchResult,
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
def _without_beats(monkeypatch) -> None:
    monkeypatch.setattr(crew, "HEARTBEAT_SECONDS", 1e9)


@pytest.mark.parametrize("workers", [1, 3])
def test_every_task_gives_its_result_under_its_number(workers):
    tasks = [lambda stop, number=number: number**2 for number in range(7)]
    assert dict(run_in_threads(tasks, workers, never_stop)) == {number: number**2 for number in range(7)}
    assert list(run_in_threads([], workers, never_stop)) == []


def test_two_workers_run_at_the_same_time():
    both = threading.Barrier(2, timeout=60)
    assert len(list(run_in_threads([lambda stop: both.wait()] * 2, 2, never_stop))) == 2


def until_told(started: threading.Event, ended: threading.Event):
    def task(stop) -> None:
        started.set()
        while not stop():
            pass
        ended.set()

    return task


def test_stopping_tells_those_that_run_and_starts_no_others():
    started, ended, ran = threading.Event(), threading.Event(), []
    tasks = [until_told(started, ended), lambda stop: ran.append(True)]
    assert list(run_in_threads(tasks, 1, started.is_set)) == []
    assert ended.is_set()
    assert not ran


def test_an_error_ends_the_others_and_is_raised():
    started, ended = threading.Event(), threading.Event()

    def fails(stop) -> None:
        started.wait(60)
        raise ValueError("no good")

    with pytest.raises(ValueError, match="no good"):
        list(run_in_threads([until_told(started, ended), fails], 2, never_stop))
    assert ended.is_set()


def test_closing_ends_those_that_run():
    started, ended = threading.Event(), threading.Event()
    running = run_in_threads([lambda stop: 1, until_told(started, ended)], 2, never_stop)
    assert next(running) == (0, 1)
    running.close()
    assert not started.is_set() or ended.is_set()


def test_beats_tell_that_time_goes_by_while_nothing_ends(monkeypatch):
    monkeypatch.setattr(crew, "HEARTBEAT_SECONDS", 0.0)
    beaten = threading.Event()
    running = run_in_threads([lambda stop: beaten.wait(60)], 1, never_stop)
    assert next(running) is None
    beaten.set()
    assert [result for result in running if result is not None] == [(0, True)]


QUICK = TrainingSettings(epochs=6, steps=6, depth=2, width=8, folds=2, trees=10, patches={"size": 34, "sampling": 17})
SOME = ("default", "oriented", "free", "plain", "forest")


def part() -> AnnotatedImage:
    sample = stripes(0)
    found = open_checked_pair("stripes", sample.image, sample.mask, axes="yx")
    return found, index_objects(found.mask), pd.Series(sample.classes + 1, index=np.arange(1, len(sample.classes) + 1))


def gathered(names: tuple[str, ...] = SOME) -> dict[str, TrainingData]:
    """Discs that only the direction of their stripes tells apart, as some presets see them."""
    tried = {name: settings for name, settings in candidate_presets(QUICK).items() if name in names}
    *_, several = collect_for_each([part()], list(tried.values()))
    return dict(zip(tried, several, strict=True))


def found_by(tried: dict[str, TrainingData], **how) -> SearchResult:
    (*_, last) = search(tried, keep_epochs=True, **how)
    assert isinstance(last, SearchResult)
    return last


@pytest.fixture(scope="module", autouse=True)
def _short() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MIN_FIRST_STEPS, 2, 12)
        patch.setattr(crew, "HEARTBEAT_SECONDS", 1e9)
        yield


@pytest.fixture(scope="module")
def found(_short: None) -> SearchResult:
    return found_by(gathered(), workers=2)


def accuracy(table: pd.DataFrame) -> float:
    return float((table["predicted"] == table["truth"]).mean())


def test_stripes_are_told_apart_only_where_their_direction_is_kept(found):
    assert found.preset in ("oriented", "plain")
    assert found.settings.augmentation.rotation in ("half_turns", "none")
    assert accuracy(found.chosen_table) >= 0.85
    by_name = {one.preset: one for one in found.candidates}
    assert set(by_name) == set(SOME)
    assert accuracy(by_name["free"].table) < 0.8
    assert found.candidates[0].preset == found.preset


def test_the_others_are_left_behind_after_a_short_training(found):
    finalists = [one for one in found.candidates if one.is_finalist]
    assert {one.settings.epochs for one in finalists if one.preset != "forest"} == {QUICK.epochs}
    (behind,) = [one for one in found.candidates if not one.is_finalist]
    assert len(finalists) == 4
    assert behind.settings.epochs == 2


def test_the_reported_score_is_that_of_choosing(found):
    finalists = {one.preset: one for one in found.candidates if one.is_finalist}
    known = {name: finalists[name].table[["p_1", "p_2"]].to_numpy(float) for name in SOME if name in finalists}
    truth, folds = (found.nested_table["truth"] - 1).to_numpy(), found.nested_table["fold"].to_numpy()
    expected, _ = nested_selection(truth, folds, known)
    np.testing.assert_allclose(found.nested_table[["p_1", "p_2"]], expected, atol=1e-6)
    for name, p in known.items():
        assert finalists[name].merit == pytest.approx(brier_skill(truth, p), abs=1e-6)


def test_the_result_does_not_depend_on_how_many_train_at_a_time(found):
    before = torch.get_rng_state()
    again = found_by(gathered(), workers=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert again.preset == found.preset
    for one, other in zip(found.candidates, again.candidates, strict=True):
        assert one.preset == other.preset
        pd.testing.assert_frame_equal(one.table, other.table)


def test_progress_grows_to_its_total_and_says_what_is_tried():
    *steps, _ = search(gathered(), keep_epochs=True)
    assert all(isinstance(step, SearchProgress) for step in steps)
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert done[-1] == steps[-1].total
    assert steps[0].text == "trying 5 presets: 1 of 10 trainings"
    assert steps[-1].text == "comparing 3 presets: 6 of 6 trainings"


def test_progress_counts_what_each_training_costs():
    tried = gathered(("default", "oriented", "free", "plain"))
    dear = tried["plain"]
    tried["plain"] = replace(dear, settings=dear.settings.changed(steps=10 * QUICK.steps))
    *steps, last = search(tried, keep_epochs=True)
    shares = np.diff([0, *(step.done for step in steps)])
    first = [shares[:4], shares[4:8]]  # both folds, in the order of the candidates
    for default, oriented, free, plain in first:
        assert default == oriented == free
        assert plain == pytest.approx(10 * default, rel=0.1)
    assert steps[-1].done == steps[-1].total
    at_first, later = {step.total for step in steps[:8]}, {step.total for step in steps[8:]}
    finalists = [one.preset for one in last.candidates if one.is_finalist]
    assert (at_first == later) == ("plain" in finalists), "the dearest are expected to go on until the first round ends"


def test_progress_goes_on_within_a_training(monkeypatch):
    monkeypatch.setattr(crew, "HEARTBEAT_SECONDS", 0.0)
    monkeypatch.setattr(crew, "POLL_SECONDS", 0.001)
    *steps, last = search(gathered(("default", "oriented")), keep_epochs=True)
    done = [step.done for step in steps]
    assert isinstance(last, SearchResult)
    assert done == sorted(done)
    assert done[-1] == steps[-1].total
    assert len(set(done)) > 4, "there are four trainings, of six epochs each"
    assert steps[0].text == "comparing 2 presets: 0 of 4 trainings"


def test_a_stop_ends_the_search_without_a_result():
    assert list(search(gathered(), stop=lambda: True)) == []
    seen = []
    events = search(gathered(), keep_epochs=True, stop=lambda: len(seen) >= 3)
    seen.extend(iter(lambda: next(events, None), None))
    assert all(isinstance(event, SearchProgress) for event in seen)
    assert len(seen) == 3


def test_with_few_candidates_all_are_trained_to_the_end():
    found = found_by(gathered(("default", "oriented", "forest")))
    assert found.preset == "oriented"
    assert all(one.is_finalist for one in found.candidates)


def test_a_candidate_that_diverges_is_no_reason_to_give_up(monkeypatch):
    tried = gathered(("default", "oriented", "plain"))

    def broken(samples: TrainingData, stop=never_stop):
        if samples.settings.preset == "oriented":
            raise ClassifierError("training diverged")
        return fit(samples, stop)

    fit = searching.fit
    monkeypatch.setattr(searching, "fit", broken)
    found = found_by(tried)
    by_name = {one.preset: one for one in found.candidates}
    assert found.preset == "plain"
    np.testing.assert_allclose(by_name["oriented"].table[["p_1", "p_2"]], 0.5)


def test_of_many_objects_some_of_each_class_are_tried(monkeypatch):
    monkeypatch.setattr(searching, "MAX_SEARCH_OBJECTS", 22)
    tried = gathered()
    first = tried["default"]
    targets = np.where(np.arange(len(first)) < 21, 1, 2)
    found = found_by({name: replace(tried[name], targets=targets) for name in ("default", "forest")})
    counts = found.nested_table["truth"].value_counts()
    assert counts[2] == 4
    assert counts[1] <= 20 < len(first)


def settings_of(ndim: int, **changes) -> TrainingSettings:
    sampling = (48, 48) if ndim == 2 else (24, 24, 24)
    return TrainingSettings(patches={"size": sampling, "sampling": sampling}, **changes)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_plan_keeps_to_the_budget_and_grows_with_it(ndim, monkeypatch):
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


def test_a_short_training_leaves_none_behind():
    short = plan_search([settings_of(2, epochs=1)] * 7, 45, 1, 4, keep_epochs=True)
    assert (short.first_round_epochs, short.epochs, short.finalists) == (1, 1, 7)


def test_epochs_that_were_asked_for_are_kept():
    assert plan_search([settings_of(3, epochs=500)] * 7, 45, 1, 4, keep_epochs=True).epochs == 500


def test_steps_batches_and_views_of_each_candidate_count():
    usual = plan_search([settings_of(3)] * 3, 45, 1, 4, keep_epochs=True).seconds
    for more, costs in (({"steps": 40}, 1.5), ({"batch_size": 64}, 1.5), ({"views": 48}, 1.01)):
        assert (
            plan_search([settings_of(3)] * 2 + [settings_of(3, **more)], 45, 1, 4, keep_epochs=True).seconds
            > costs * usual
        )


def test_a_network_that_leaves_no_time_for_others_is_not_affordable_unless_it_is_about_as_quick_as_the_first(
    monkeypatch,
):
    usual, near, slow = settings_of(3), settings_of(3, steps=19), settings_of(3, steps=60)
    forest = settings_of(3, architecture="forest")
    tried = {"default": usual, "near": near, "slow": slow, "forest": forest}
    for budget, names in ((1e9, [*tried]), (1e-9, ["default", "near", "forest"])):
        monkeypatch.setitem(BUDGET_SECONDS, 3, budget)
        assert affordable_candidates(tried, 45, 1) == names
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


def test_as_many_objects_fit_as_their_patches_say():
    tried = gathered()
    several = [samples.settings for samples in tried.values()]
    held = {samples.inputs.ctypes.data: samples.inputs for name, samples in tried.items() if name != "forest"}
    each = sum(inputs.nbytes for inputs in held.values()) / len(tried["forest"])
    assert max_objects_in_memory([part()], several, 2**24) == pytest.approx(2**24 / each, rel=0.1)
    forest = [tried["forest"].settings]
    assert max_objects_in_memory([part()], forest, 2**24) >= 2**24, "of a forest, nothing is cut"
