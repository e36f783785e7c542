"""Plan of a preset search: it stays within the budget and depends on expected times only."""

from __future__ import annotations

import pytest

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.learn.networks import step_seconds
from svetlana_jupyter.learn.search_plan import BUDGET_SECONDS, MIN_STEPS, SearchPlan, affordable_candidates, plan_search


def settings_of(ndim: int, **changes) -> TrainingSettings:
    sampling = (48, 48) if ndim == 2 else (24, 24, 24)
    return TrainingSettings(patches={"size": sampling, "sampling": sampling}, **changes)


def plan(*networks: TrainingSettings, keep_epochs: bool = False) -> SearchPlan:
    return plan_search({str(n): one for n, one in enumerate(networks)}, 45, 1, 4, keep_epochs)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_plan_stays_within_the_budget_and_scales_with_it(ndim, monkeypatch):
    wide = plan(*[settings_of(ndim)] * 7)
    assert 0 < wide.first_round_epochs < wide.epochs <= 40
    assert wide.seconds <= BUDGET_SECONDS[ndim] or wide.epochs == MIN_STEPS[ndim] / 10
    few = plan(*[settings_of(ndim)] * 2)
    assert few.epochs > wide.epochs or few.epochs == 40
    assert few.finalists == 2
    assert not few.has_first_round
    monkeypatch.setitem(BUDGET_SECONDS, ndim, 1e9)
    assert plan(*[settings_of(ndim)] * 7).epochs == 40
    monkeypatch.setitem(BUDGET_SECONDS, ndim, 0.0)
    assert plan(*[settings_of(ndim)] * 7).epochs == MIN_STEPS[ndim] / 10


def test_the_expected_times_add_up():
    planned = plan(*[settings_of(2, steps=steps) for steps in (10, 10, 20, 40)], keep_epochs=True)
    first, parts, epochs = planned.first_round_epochs, planned.first_round_parts, planned.epochs
    epoch, prediction = planned.epoch_seconds, planned.prediction_seconds
    searching = parts * first * sum(epoch.values()) + parts / 4 * sum(prediction.values())
    expensive = sum(4 * epochs * epoch[name] + prediction[name] for name in ("2", "3"))
    assert planned.seconds == pytest.approx(searching + expensive + epochs * epoch["3"])
    cheapest = 4 * epochs * epoch["0"] + prediction["0"]
    assert planned.entry_seconds == pytest.approx(searching + cheapest + epochs * epoch["0"])


def test_a_short_training_drops_no_candidate():
    short = plan(*[settings_of(2, epochs=1)] * 7, keep_epochs=True)
    assert (short.first_round_epochs, short.epochs, short.finalists) == (1, 1, 7)


def test_given_epochs_are_kept():
    assert plan(*[settings_of(3, epochs=500)] * 7, keep_epochs=True).epochs == 500


def test_planned_time_depends_on_steps_batch_size_and_views():
    standard = plan(*[settings_of(3)] * 3, keep_epochs=True).seconds
    for more, costs in (({"steps": 40}, 1.5), ({"batch_size": 64}, 1.5), ({"views": 48}, 1.01)):
        assert plan(*[settings_of(3)] * 2, settings_of(3, **more), keep_epochs=True).seconds > costs * standard


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
