"""Calibration compared with known parameters, logistic regression and naive loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from svetlana_jupyter.core.stats.calibration import NO_CALIBRATION, Calibration, calibrate, reliability

COLUMNS = ["p_1", "p_2", "p_3"]


def held_out(n: int, temperature: float = 1.0, bias: tuple[float, ...] = (0, 0, 0), seed: int = 0) -> pd.DataFrame:
    """Return predictions that a given temperature and bias calibrate."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, len(bias)))
    truth = np.array([rng.choice(len(bias), p=p) for p in softmax(logits, axis=1)])
    p = softmax((logits - np.array(bias)) * temperature, axis=1)
    fold = np.arange(n) % 12 % 4
    table = pd.DataFrame({"fold": fold, "group": np.arange(n) % 12, "truth": truth + 1, "predicted": p.argmax(1) + 1})
    return table.join(pd.DataFrame(p, columns=[f"p_{class_id}" for class_id in range(1, len(bias) + 1)]))


def reliability_of(table: pd.DataFrame):
    return reliability(table[COLUMNS].max(axis=1).to_numpy(), (table["predicted"] == table["truth"]).to_numpy())


def test_a_temperature_is_fitted_and_changes_no_class() -> None:
    table = held_out(2000, temperature=2.0)
    calibration, crossed = calibrate(table)
    assert calibration.temperature == pytest.approx(2.0, rel=0.1)
    assert not calibration.bias
    assert (crossed["predicted"] == table["predicted"]).all()
    assert (calibration.apply(table)["predicted"] == table["predicted"]).all()
    assert reliability_of(crossed).error < 0.5 * reliability_of(table).error


def test_a_bias_is_fitted_and_may_change_classes() -> None:
    table = held_out(2000, 1.5, bias=(0.9, -0.5, -0.4))
    calibration, crossed = calibrate(table)
    assert list(calibration.bias) == [1, 2, 3]
    np.testing.assert_allclose(list(calibration.bias.values()), [0.9, -0.5, -0.4], atol=0.15)
    right = [(rows["predicted"] == rows["truth"]).mean() for rows in (table, crossed)]
    assert right[1] > right[0] + 0.02


def test_two_classes_are_calibrated_as_by_logistic_regression() -> None:
    table = held_out(3000, 1.7, bias=(0.5, -0.5))
    calibration, _ = calibrate(table)
    odds = np.log(table["p_2"] / table["p_1"]).to_numpy()[:, None]
    model = LogisticRegression(C=np.inf).fit(odds, table["truth"])
    assert 1 / calibration.temperature == pytest.approx(model.coef_[0, 0], rel=0.02)
    assert calibration.bias[2] - calibration.bias[1] == pytest.approx(model.intercept_[0], abs=0.03)


def test_calibrated_probabilities_stay_unchanged() -> None:
    changed = [not calibrate(held_out(120, seed=seed))[0].is_identity for seed in range(20)]
    assert sum(changed) <= 3


def test_each_fold_is_calibrated_by_the_other_folds() -> None:
    table = held_out(400, temperature=2.5)
    _, crossed = calibrate(table)
    modified = table.copy()
    in_fold = modified["fold"] == 2
    modified.loc[in_fold, "truth"] = modified.loc[in_fold, "predicted"] % 3 + 1
    _, again = calibrate(modified)
    pd.testing.assert_frame_equal(again.loc[in_fold, COLUMNS], crossed.loc[in_fold, COLUMNS])
    assert not again.loc[~in_fold, COLUMNS].equals(crossed.loc[~in_fold, COLUMNS])


def test_few_objects_are_not_calibrated() -> None:
    table = held_out(49, temperature=3.0)
    calibration, crossed = calibrate(table)
    assert calibration.is_identity
    assert crossed is table


def test_a_class_of_few_objects_gets_no_bias() -> None:
    table = held_out(1000, 1.5, bias=(1.5, -0.8, -0.7))
    rare = table["truth"] == 3
    assert calibrate(table)[0].bias
    assert not calibrate(table[~rare | (rare.cumsum() <= 9)])[0].bias


def test_perfect_predictions_do_not_give_probability_one() -> None:
    table = held_out(60)
    table["truth"] = table["predicted"]
    calibration, crossed = calibrate(table)
    p = crossed[COLUMNS].max(axis=1)
    assert 0.1 < calibration.temperature < 1
    assert 0.85 < p.mean() < 1 - 1 / 62


def test_a_probability_of_zero_can_be_calibrated() -> None:
    table = pd.DataFrame({"predicted": [1], "probability": [1.0], "p_1": [1.0], "p_2": [0.0], "p_7": [0.0]})
    row = Calibration(2.0, {1: 0.0, 2: 0.5, 7: 0.0}).apply(table).iloc[0]
    expected = softmax(np.log([1, 1e-4, 1e-4]) / 2 + [0, 0.5, 0])
    np.testing.assert_allclose(row[["p_1", "p_2", "p_7"]].to_numpy(float), expected, rtol=1e-5)
    assert row["predicted"] == 1
    assert row["probability"] == row["p_1"]
    assert NO_CALIBRATION.apply(table) is table


def test_the_calibration_error_equals_that_of_a_naive_loop() -> None:
    rng = np.random.default_rng(0)
    probability = rng.uniform(0.4, 1, 150)
    right = rng.random(150) < probability - 0.2
    result = reliability(probability, right)
    order, error = np.argsort(probability), 0.0
    for rows in np.array_split(order, 10):
        error += len(rows) / 150 * abs(right[rows].mean() - probability[rows].mean())
    assert result.error == pytest.approx(error)
    assert result.bins["n"].sum() == 150
    assert result.error > 0.15 > result.expected_by_chance


def test_exact_probabilities_have_the_error_expected_by_chance() -> None:
    errors, expected_errors = zip(*((result.error, result.expected_by_chance) for result in map(_exact, range(40))))
    assert np.mean(errors) == pytest.approx(np.mean(expected_errors), rel=0.15)


def _exact(seed: int):
    rng = np.random.default_rng(seed)
    probability = rng.uniform(0.5, 1, 60)
    return reliability(probability, rng.random(60) < probability, seed)
