"""Weighted least squares with exact leave-one-out, and the live forest."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import Ridge

from svetlana_jupyter.errors import ClassifierError
from svetlana_jupyter.learn.live_head import REGULARIZATIONS, TEMPERATURES, fit_least_squares, fit_live_forest


def objects(n: int, d: int, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(classes).repeat(2), rng.integers(0, classes, n - 2 * classes)])
    features = rng.normal(size=(n, d)) + 1.2 * np.eye(classes, d)[codes]
    return (features / np.sqrt(d)).astype(np.float32), codes


def ridge_scores(features, codes, weights, regularization, new) -> np.ndarray:
    """Return the scores of a ridge regression by scikit-learn that has a penalized bias."""
    design = np.column_stack([features, np.ones(len(features))]).astype(float)
    model = Ridge(regularization, fit_intercept=False, solver="cholesky")
    model.fit(design, np.where(np.arange(weights.shape[1]) == codes[:, None], 1, -1), sample_weight=weights[:, 0])
    return model.predict(np.column_stack([new, np.ones(len(new))]).astype(float))


def class_weights(codes) -> np.ndarray:
    weights = np.bincount(codes)[codes] ** -0.5
    return np.repeat((weights * len(codes) / weights.sum())[:, None], codes.max() + 1, axis=1)


@pytest.mark.parametrize(("n", "d"), [(25, 60), (60, 25), (40, 39), (41, 40)])
def test_leave_one_out_equals_fits_without_each_object(n, d):
    features, codes = objects(n, d)
    head, weights = fit_least_squares(features, codes), class_weights(codes)
    for i in range(n):
        rest = np.arange(n) != i
        scores = ridge_scores(features[rest], codes[rest], weights[rest], head.regularization, features[i : i + 1])
        np.testing.assert_allclose(head.leave_one_out[i], softmax(head.temperature * scores[0]), atol=1e-5)


@pytest.mark.parametrize(("n", "d"), [(25, 60), (60, 25)])
def test_scores_are_those_of_ridge_regression(n, d):
    features, codes = objects(n, d)
    head, new = fit_least_squares(features, codes), objects(7, d, seed=1)[0]
    scores = ridge_scores(features, codes, class_weights(codes), head.regularization, new)
    np.testing.assert_allclose(new @ head.weights + head.bias, scores, atol=1e-5)
    np.testing.assert_allclose(head.probabilities(new), softmax(head.temperature * scores, axis=1), atol=1e-5)
    assert head.probabilities(new).dtype == np.float32


@pytest.mark.parametrize(("n", "d"), [(25, 60), (60, 25)])
def test_regularization_and_temperature_have_the_smallest_leave_one_out_loss(n, d):
    features, codes = objects(n, d, seed=2)
    head, weights = fit_least_squares(features, codes), class_weights(codes)
    losses = {}
    for regularization in REGULARIZATIONS:
        scores = np.concatenate(
            [
                ridge_scores(
                    np.delete(features, i, 0),
                    np.delete(codes, i),
                    np.delete(weights, i, 0),
                    regularization,
                    features[i : i + 1],
                )
                for i in range(n)
            ]
        )
        for temperature in TEMPERATURES:
            p = softmax(temperature * scores, axis=1)[np.arange(n), codes]
            losses[regularization, temperature] = np.average(-np.log(p), weights=weights[:, 0])
    assert (head.regularization, head.temperature) == min(losses, key=losses.__getitem__)
    assert head.log_loss == pytest.approx(min(losses.values()), abs=1e-6)


def test_zero_features_do_not_change_the_result_when_they_outnumber_the_labels():
    features, codes = objects(60, 25)
    wide = np.column_stack([features, np.zeros((60, 50), np.float32)])
    primal, dual = fit_least_squares(features, codes), fit_least_squares(wide, codes)
    assert (primal.regularization, primal.temperature) == (dual.regularization, dual.temperature)
    np.testing.assert_allclose(primal.leave_one_out, dual.leave_one_out, atol=1e-5)
    np.testing.assert_allclose(primal.weights, dual.weights[:25], atol=1e-6)


def test_the_same_labels_give_the_same_bytes():
    for n, d in [(25, 60), (60, 25)]:
        features, codes = objects(n, d)
        for fitted in (fit_least_squares, fit_live_forest):
            first, second = fitted(features, codes), fitted(features.copy(), codes.copy())
            assert first.probabilities(features).tobytes() == second.probabilities(features).tobytes()


def test_labels_of_one_object_per_class_are_enough_for_a_prediction():
    features, codes = np.eye(3, dtype=np.float32), np.arange(3)
    head = fit_least_squares(features, codes)
    assert head.probabilities(features).argmax(axis=1).tolist() == [0, 1, 2]
    assert np.isnan(head.log_loss)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forest = fit_live_forest(features, codes)
    np.testing.assert_allclose(forest.probabilities(features).sum(axis=1), 1, rtol=1e-6)
    assert forest.temperature == 1


def test_the_only_label_of_a_class_has_no_part_in_the_choice_of_hyperparameters():
    features, codes = objects(30, 50, classes=2)
    features[0] += 20
    alone = codes.copy()
    alone[0] = 2
    head = fit_least_squares(features, alone)
    counted = np.bincount(alone)[alone] > 1
    p = head.leave_one_out[np.arange(30), alone]
    assert head.log_loss == pytest.approx(
        np.average(-np.log(p[counted]), weights=class_weights(alone)[counted, 0]), abs=1e-6
    )
    assert p[0] < 0.5


def test_labels_of_the_same_object_twice_are_accepted():
    features, codes = objects(20, 50)
    head = fit_least_squares(np.concatenate([features, features]), np.concatenate([codes, codes]))
    assert np.isfinite(head.leave_one_out).all()
    assert head.probabilities(features).argmax(axis=1).tolist() == codes.tolist()


def test_out_of_bag_probabilities_are_those_of_scikit_learn():
    features, codes = objects(80, 10)
    forest = fit_live_forest(features, codes, seed=4)
    peer = RandomForestClassifier(60, class_weight="balanced", oob_score=True, random_state=4).fit(features, codes)
    power = (peer.oob_decision_function_ + 0.5 / 60) ** forest.temperature
    np.testing.assert_allclose(forest.out_of_bag, power / power.sum(axis=1, keepdims=True), atol=1e-12)
    power = (peer.predict_proba(features) + 0.5 / 60) ** forest.temperature
    np.testing.assert_allclose(forest.probabilities(features), power / power.sum(axis=1, keepdims=True), atol=1e-6)


def test_the_forest_is_sharpened_where_its_fractions_are_too_cautious():
    features, codes = objects(200, 40, classes=2)
    features[:, 0] += 2 * codes
    assert fit_live_forest(features, codes).temperature > 1


@pytest.mark.parametrize("fitted", [fit_least_squares, fit_live_forest])
def test_labels_that_cannot_be_fitted_are_refused(fitted):
    features, codes = objects(20, 5)
    with pytest.raises(ClassifierError, match=r"20 labels are of fewer than two classes. Label objects of two"):
        fitted(features, np.zeros(20, int))
    with pytest.raises(ClassifierError, match=r"No label has the code 0. Number the classes from 0 without gaps"):
        fitted(features, codes + 1)
    with pytest.raises(ClassifierError, match="Label objects of two classes"):
        fitted(features[:0], codes[:0])
    with pytest.raises(ClassifierError, match="one code per row"):
        fitted(features, codes[1:])
    features[[3, 7], 1] = np.nan
    with pytest.raises(ClassifierError, match="2 labeled objects are not finite, first in row 3"):
        fitted(features, codes)


def test_a_forest_is_the_one_that_is_fitted_at_once():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(60, 8)).astype(np.float32)
    codes = (features[:, 0] > 0.5).astype(np.int64)
    whole = RandomForestClassifier(60, class_weight="balanced", max_samples=60, random_state=3, n_jobs=1)
    expected = whole.fit(features, codes).predict_proba(features)
    trees = fit_live_forest(features, codes, seed=3).trees
    np.testing.assert_array_equal(sum(tree.predict_proba(features) for tree in trees) / 60, expected)


def test_forests_in_two_threads_leave_the_warning_filters_alone():
    features, codes = objects(80, 10)
    before = list(warnings.filters)
    with ThreadPoolExecutor(2) as pool:
        fitted = list(pool.map(lambda seed: fit_live_forest(features, codes, seed), range(6)))
        list(pool.map(lambda forest: forest.probabilities(features), fitted))
    assert warnings.filters == before


def test_a_check_ends_the_fit_of_a_forest():
    calls = []

    def check() -> None:
        calls.append(len(calls))
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_live_forest(np.eye(6, dtype=np.float32), np.arange(6) % 2, check=check)
    assert len(calls) == 2
