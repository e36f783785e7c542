"""Queries: the objects they choose, checked against definitions and plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from svetlana_jupyter.core.queries import QUERIES, Pick, Pool

NAMES = ("a", "b", "c")
P = np.array([[0.9, 0.06, 0.04], [0.45, 0.5, 0.05], [0.1, 0.3, 0.6], [0.34, 0.33, 0.33], [0.05, 0.55, 0.4]], np.float32)
Q = np.array([[0.8, 0.2, 0], [0.9, 0.1, 0], [0.5, 0.1, 0.4], [0.1, 0.8, 0.1], [0.1, 0.5, 0.4]], np.float32)


def positions(kind: str, pool: Pool, count: int = 10) -> list[int]:
    return [pick.position for pick in QUERIES[kind].function(pool, count)]


def rows(n: int, d: int = 30, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(n, d))
    return (values / np.linalg.norm(values, axis=1).mean()).astype(np.float32)


def posterior(features: np.ndarray, labeled: np.ndarray, regularization: float) -> np.ndarray:
    """Return the posterior covariance of a Gaussian process whose kernel is linear with a bias."""
    inner = np.column_stack([features, np.ones(len(features))]).astype(float)
    known = np.column_stack([labeled, np.ones(len(labeled))]).astype(float)
    precision = np.eye(inner.shape[1]) + known.T @ known / regularization
    return inner @ np.linalg.inv(precision) @ inner.T


def test_the_most_useful_object_lowers_the_sum_of_the_variances_most():
    features, labeled = rows(60), rows(8, seed=1)
    for probabilities in (None, P[np.arange(60) % 5]):  # predictions have no weight below 15 labels
        pool = Pool(features=features, labeled=labeled, regularization=0.5, probabilities=probabilities)
        sums = [
            posterior(features, np.concatenate([labeled, features[i : i + 1]]), 0.5).trace()
            for i in range(len(features))
        ]
        assert positions("useful", pool, 1) == [int(np.argmin(sums))]


def test_several_useful_objects_are_chosen_as_if_each_were_labeled_at_once():
    features, labeled = rows(50), rows(5, seed=1)
    chosen: list[int] = []
    for _ in range(6):
        known = np.concatenate([labeled, features[chosen]])
        sums = [posterior(features, np.concatenate([known, features[i : i + 1]]), 0.3).trace() for i in range(50)]
        sums = np.where(np.isin(np.arange(50), chosen), np.inf, sums)
        chosen.append(int(np.argmin(sums)))
    assert positions("useful", Pool(features=features, labeled=labeled), 6) == chosen


def test_uncertain_and_rare_objects_have_more_weight():
    features, labeled = np.eye(40, 30, dtype=np.float32), rows(15, seed=1)
    probabilities = np.tile(np.array([[0.98, 0.01, 0.01]], np.float32), (40, 1))
    probabilities[7] = [0.34, 0.33, 0.33]
    pool = Pool(features=features, labeled=labeled, probabilities=probabilities)
    (pick,) = QUERIES["useful"].function(pool, 1)
    assert pick.position == 7
    assert pick.reason.startswith("uncertain, and like ")
    without = Pool(features=features, labeled=labeled)
    assert positions("useful", without, 40) == positions("diverse", without, 40)
    assert positions("useful", pool, 40) != positions("diverse", pool, 40)


def test_the_reason_counts_the_objects_that_are_alike_in_the_whole_project():
    group = np.tile(np.eye(1, 10, dtype=np.float32), (13, 1))
    features = np.concatenate([group, np.eye(10, dtype=np.float32)[1:4]])
    pick = QUERIES["useful"].function(Pool(features=features, total=160), 1)[0]
    assert pick == Pick(0, "typical, and like 120 other objects")


def test_without_any_label_the_first_objects_are_of_different_groups():
    centers = np.eye(4, 30) * 3
    features = (np.repeat(centers, 20, axis=0) + 0.1 * rows(80)).astype(np.float32)
    chosen = positions("diverse", Pool(features=features), 4)
    assert sorted(i // 20 for i in chosen) == [0, 1, 2, 3]


def test_uncertain_objects_come_in_the_order_of_the_margin():
    picks = QUERIES["uncertain"].function(Pool(probabilities=P, names=NAMES), 3)
    assert [pick.position for pick in picks] == [3, 1, 4]
    assert picks[1].reason == "uncertain: b 50 % or a 45 %"


def test_objects_between_two_chosen_classes_have_these_as_the_likeliest():
    assert positions("confused", Pool(probabilities=P, names=NAMES, chosen=(1, 0))) == [3, 1, 0]
    assert positions("confused", Pool(probabilities=P, names=NAMES, chosen=(1, 2))) == [4, 2]


def test_objects_predicted_as_a_class_come_with_the_least_certain_first():
    assert positions("predicted", Pool(probabilities=P, names=NAMES, chosen=(0,))) == [3, 0]


def test_the_rarest_class_is_the_one_with_the_fewest_labels():
    picks = QUERIES["rare"].function(Pool(probabilities=P, names=NAMES, counts=(5, 9, 1)), 2)
    assert picks == [
        Pick(2, "possibly c 60 %, the class with the fewest labels"),
        Pick(4, "possibly c 40 %, the class with the fewest labels"),
    ]


def test_disagreement_is_the_distance_of_the_probabilities_of_two_classifiers():
    assert positions("disagreement", Pool(probabilities=P, others=Q, names=NAMES)) == [3, 1, 2]


def test_suspected_labels_are_unlikely_according_to_the_other_labels():
    pool = Pool(probabilities=P, codes=np.array([0, 0, 0, 1, 1]), names=NAMES, counts=(3, 2, 0))
    picks = QUERIES["suspect"].function(pool, 10)
    assert [pick.position for pick in picks] == [2, 3, 1]
    assert picks[0].reason == "labeled a, but the other labels suggest c 60 %"


def test_the_only_label_of_a_class_is_not_suspected():
    codes = np.array([0, 0, 2, 1, 0])
    for counts, suspects in (((3, 2, 1), [4, 3, 1]), ((3, 1, 1), [4, 1])):
        pool = Pool(probabilities=P, codes=codes, names=NAMES, counts=counts)
        assert positions("suspect", pool) == suspects


def test_objects_unlike_the_labeled_ones_are_also_unlike_each_other():
    features, labeled = rows(40), rows(6, seed=1)
    known, expected = labeled.copy(), []
    for _ in range(5):
        distance = np.linalg.norm(features[:, None] - known[None], axis=2).min(axis=1)
        expected.append(int(distance.argmax()))
        known = np.concatenate([known, features[expected[-1:]]])
    assert positions("unlike", Pool(features=features, labeled=labeled), 5) == expected


def test_objects_predicted_as_the_only_class_are_chosen():
    pool = Pool(probabilities=np.ones((3, 1), np.float32), names=("a",), chosen=(0,))
    assert positions("predicted", pool) == [0, 1, 2]


def test_objects_unlike_none_are_diverse():
    pool = Pool(features=rows(40), labeled=rows(1)[:0])
    assert QUERIES["unlike"].function(pool, 5) == QUERIES["diverse"].function(pool, 5)


def test_objects_without_prediction_are_left_out():
    p = P.copy()
    p[3] = np.nan
    pool = Pool(
        probabilities=p, others=Q, names=NAMES, chosen=(0, 1), counts=(2, 2, 1), codes=np.array([0, 0, 0, 0, 0])
    )
    for kind in ("uncertain", "confused", "rare", "disagreement", "suspect"):
        assert 3 not in positions(kind, pool), kind


@pytest.mark.parametrize("kind", QUERIES)
def test_a_query_returns_each_object_once_and_nothing_from_an_empty_pool(kind):
    rng = np.random.default_rng(0)
    for n in (0, 1, 12):
        p, q = (rng.dirichlet(np.ones(3), n).astype(np.float32) for _ in range(2))
        pool = Pool(
            features=rows(n) if n else np.empty((0, 30), np.float32),
            probabilities=p,
            others=q,
            codes=rng.integers(0, 3, n),
            labeled=rows(20, seed=2),
            names=NAMES,
            chosen=(0, 1)[: QUERIES[kind].classes],
            counts=(1, 2, 3),
        )
        chosen = positions(kind, pool, 100)
        assert len(chosen) == len(set(chosen)) <= n
        assert positions(kind, pool, 3) == chosen[:3]


def test_each_query_has_a_title_of_its_own_for_menus():
    titles = [query.title for query in QUERIES.values()]
    assert len(set(titles)) == len(titles)
