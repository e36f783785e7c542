"""Class fractions: estimates against formulas, intervals against Student's t, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from svetlana_jupyter.core.stats.fractions import ASSUMPTION, CountedObjects, DrawnLabels, FractionEstimator

CONFUSION = np.array([[0.9, 0.1], [0.05, 0.95]])  # rows are the true classes


def predicted(counts, confidence=0.95):
    """Return probabilities of ``counts[j]`` objects that are predicted as class j."""
    k = len(counts)
    probability = np.full((k, k), (1 - confidence) / (k - 1))
    np.fill_diagonal(probability, confidence)
    return np.repeat(probability, counts, axis=0)


def labels(confusion=CONFUSION, of_each=200, unit="elsewhere"):
    """Return labels, ``of_each`` of each class, whose predictions have exactly the rates of ``confusion``."""
    counts = np.rint(np.asarray(confusion) * np.reshape(of_each, (-1, 1))).astype(int)
    truth = np.repeat(np.arange(len(counts)), counts.sum(axis=1))
    return DrawnLabels(np.concatenate([predicted(row) for row in counts]), truth, np.full(len(truth), unit))


def both(first, second):
    return DrawnLabels(*(np.concatenate(columns) for columns in zip(first, second)))


def group(probability, unit, annotation=-1, is_drawn=False):
    """Return counted objects; nothing is annotated by default."""
    n = len(unit)
    return CountedObjects(probability, np.broadcast_to(annotation, n).copy(), unit, np.broadcast_to(is_drawn, n).copy())


def objects(counts, units=1, name="w"):
    """Return unannotated objects, ``counts[j]`` of each unit predicted as class j."""
    probability = np.concatenate([predicted(counts)] * units)
    unit = np.repeat([f"{name}{i}" for i in range(units)], sum(counts))
    return group(probability, unit)


def estimate(drawn, *groups):
    return FractionEstimator(drawn).estimate(groups)


def draw(rng, fractions, confusion, n):
    """Return true classes and predicted probabilities of n objects."""
    truth = rng.choice(len(fractions), n, p=fractions)
    counts = np.array([rng.multinomial(1, confusion[one]) for one in truth])
    return truth, counts @ predicted([1] * len(fractions))


@pytest.mark.parametrize("counts", [(20, 80), (60, 40), (87, 13)])
def test_fractions_of_certain_rates_are_those_of_rogan_and_gladen(counts):
    (result,) = estimate(labels(of_each=1000), objects(counts, units=4))
    expected = (counts[0] / 100 - 0.05) / (0.9 - 0.05)
    assert result.fraction == pytest.approx([expected, 1 - expected], abs=0.01)
    assert result.method == "corrected"
    assert result.note == [ASSUMPTION] * 2


def test_class_weights_of_the_training_do_not_bias_the_fractions():
    rng = np.random.default_rng(0)
    truth, probability = draw(rng, [0.1, 0.9], CONFUSION, 3000)
    weighted = probability * [5, 1]
    weighted /= weighted.sum(axis=1, keepdims=True)
    drawn = DrawnLabels(weighted[:1000], truth[:1000], np.full(1000, "elsewhere"))
    counted = group(weighted[1000:], np.repeat(["a", "b"], 1000))
    assert estimate(drawn, counted)[0].fraction[0] == pytest.approx((truth[1000:] == 0).mean(), abs=0.02)


def test_annotated_objects_count_as_annotated():
    wells = objects((10, 90), units=2)
    wells.annotation[:50] = 0
    (result,) = estimate(labels(of_each=1000), wells)
    rest = wells.probability[50:].argmax(axis=1) == 0
    expected = (50 + 150 * (rest.mean() - 0.05) / 0.85) / 200
    assert result.fraction[0] == pytest.approx(max(expected, 50 / 200), abs=0.01)
    assert result.low[0] >= 50 / 200


def test_the_interval_of_annotated_wells_is_that_of_student():
    shares = np.array([0.2, 0.3, 0.35, 0.15])
    annotation = np.concatenate([np.repeat([0, 1], [round(100 * share), 100 - round(100 * share)]) for share in shares])
    wells = group(predicted([200, 200]), np.repeat(list("abcd"), 100), annotation)
    (result,) = estimate(labels(of_each=0), wells)
    low, _ = t.interval(0.95, 3, shares.mean(), shares.std(ddof=1) / 2)
    assert (result.method, result.note) == ("annotated", ["", ""])
    assert result.fraction[0] == pytest.approx(shares.mean())
    assert result.low[0] == pytest.approx(low, abs=0.003)
    assert result.high[1] == pytest.approx(1 - low, abs=0.003)


def test_a_single_annotated_well_has_no_interval():
    (result,) = estimate(labels(), group(predicted([3, 1]), np.full(4, "a"), [0, 0, 1, 1]))
    assert result.fraction.tolist() == [0.5, 0.5]
    assert np.isnan(result.low).all()
    assert np.isnan(result.high).all()
    assert result.note[0] == "All objects are annotated: the count is exact."


@pytest.mark.parametrize("lassoed", [False, True])
def test_a_useless_classifier_leaves_what_the_drawn_labels_say_unless_other_objects_are_annotated(lassoed):
    rng = np.random.default_rng(0)
    truth, probability = draw(rng, [0.2, 0.8], np.full((2, 2), 0.5), 2000)
    drawn, annotation = rng.permutation(2000)[:200], np.full(2000, -1)
    annotation[drawn] = truth[drawn]
    is_drawn = annotation >= 0
    if lassoed:
        annotation[np.flatnonzero((truth == 0) & ~is_drawn)[:150]] = 0
    wells = group(probability, np.repeat([f"{i}" for i in range(40)], 50), annotation, is_drawn)
    (result,) = estimate(DrawnLabels(probability[drawn], truth[drawn], np.full(200, "elsewhere")), wells)
    assert result.low[0] <= (truth == 0).mean() <= result.high[0]
    if not lassoed:
        share = (truth[drawn] == 0).mean()
        assert result.fraction[0] == pytest.approx(share, abs=0.03)
        width = 2 * 1.96 * np.sqrt(share * (1 - share) / 200)
        assert result.high[0] - result.low[0] == pytest.approx(width, rel=0.25)


def test_labels_that_were_drawn_before_objects_were_added_are_no_sample_of_all():
    """Simulation of a poor classifier, which would repeat what the drawn labels say."""
    rng, covered = np.random.default_rng(0), []
    for _ in range(20):
        truth = (rng.random(1000) < np.repeat([0.7, 0.9], 500)).astype(int)  # the second half was added later
        feature = rng.normal(truth)
        odds = np.exp(feature - 0.5) * 0.7 / 0.3
        probability = np.stack([1 / (1 + odds), odds / (1 + odds)], axis=1)
        drawn, annotation = rng.permutation(500)[:200], np.full(1000, -1)
        annotation[drawn] = truth[drawn]
        unit = np.repeat([f"{i}" for i in range(20)], 50)
        wells = group(probability, unit, annotation, annotation >= 0)
        (result,) = estimate(DrawnLabels(probability[drawn], truth[drawn], unit[drawn]), wells)
        covered.append(result.low[0] <= (truth == 0).mean() <= result.high[0])
    assert sum(covered) >= 18


def test_bounds_are_whole_objects():
    well = objects((2, 14))
    well.annotation[:12] = np.repeat([0, 1], [2, 10])
    (result,) = estimate(labels(), well)
    for bound in (result.low, result.high):
        assert (16 * bound).tolist() == pytest.approx(np.round(16 * bound).tolist())
    assert result.low[0] == 2 / 16, "no object besides the two annotated ones is certain"


def test_without_drawn_labels_predictions_are_counted_without_an_interval():
    (result,) = estimate(labels(of_each=8), objects((30, 70)))
    assert result.fraction.tolist() == [0.3, 0.7]
    assert np.isnan([result.low, result.high]).all()
    assert result.method == "predicted"
    assert "Fewer than 20 labels were drawn at random" in result.note[0]


def test_only_a_class_with_few_drawn_labels_lacks_the_interval():
    drawn = both(labels(np.eye(3), 40), DrawnLabels(*(column[-37:] for column in labels(np.eye(3), 37))))
    drawn = DrawnLabels(*(column[np.r_[0:80, 81:84]] for column in drawn))  # 40, 40 and 3 labels
    (result,) = estimate(drawn, objects((40, 50, 10), units=3))
    assert np.isnan(result.low).tolist() == [False, False, True]
    assert result.note[2] == "Fewer than 5 randomly drawn labels of this class."


@pytest.mark.parametrize("units", [1, 3])
@pytest.mark.parametrize("counts", [(0, 50), (50, 0)])
def test_no_interval_has_zero_width(units, counts):
    (result,) = estimate(labels(np.eye(2)), objects(counts, units))
    assert (result.high - result.low > 0.01).all()
    assert ((result.low <= result.fraction) & (result.fraction <= result.high)).all()
    everything = objects(counts, 3)._replace(annotation=np.repeat([0, 1], [3 * counts[0], 3 * counts[1]]))
    (annotated,) = estimate(labels(np.eye(2)), everything)
    assert (annotated.high - annotated.low > 0.01).all()


def test_a_group_with_labels_of_its_own_is_corrected_by_them():
    other = np.array([[0.6, 0.4], [0.05, 0.95]])
    drawn = both(labels(of_each=200), labels(other, of_each=200, unit="x0"))
    _, strange = estimate(drawn, objects((30, 70), 3, "elsewhere"), objects((30, 70), 3, "x"))
    assert strange.fraction[0] == pytest.approx((0.3 - 0.05) / (0.6 - 0.05), abs=0.05)
    assert strange.note == ["", ""]


def test_a_group_without_labels_is_refused_where_errors_differ_between_groups():
    other = np.array([[0.5, 0.5], [0.05, 0.95]])
    drawn = both(labels(of_each=200, unit="a0"), labels(other, of_each=200, unit="b0"))
    groups = objects((30, 70), 2, "a"), objects((30, 70), 2, "b"), objects((30, 70), 2, "c")
    *_, unlabeled = estimate(drawn, *groups)
    assert np.isnan(unlabeled.fraction).all()
    assert unlabeled.note[0].startswith("Errors differ between groups")
    of_each = 60, 140  # as in groups where 30 % are predicted as the first class
    equal = both(labels(of_each=of_each, unit="a0"), labels(of_each=of_each, unit="b0"))
    *_, unlabeled = estimate(equal, *groups)
    assert unlabeled.note[0] == ASSUMPTION
    assert not np.isnan(unlabeled.high).any()


def test_a_group_that_is_annotated_by_hand_says_nothing_about_errors():
    drawn = both(labels(of_each=200), labels(of_each=(10, 190), unit="w0"))
    annotated = objects((15, 85), name="w")
    annotated.annotation[:] = np.repeat([0, 1], [5, 95])
    exact, other = estimate(drawn, annotated, objects((30, 70), name="x"))
    assert exact.method == "annotated"
    assert other.note == [ASSUMPTION] * 2


def test_intervals_hold_where_fractions_differ_from_those_of_the_labels():
    rng, held = np.random.default_rng(0), []
    for _ in range(40):
        truth, probability = draw(rng, [0.3, 0.7], CONFUSION, 60)
        drawn = DrawnLabels(probability, truth, np.full(60, "elsewhere"))
        shares = rng.beta(0.08 * 19, 0.92 * 19, 6)  # correlation 0.05
        counted = np.concatenate([draw(rng, [share, 1 - share], CONFUSION, 50)[1] for share in shares])
        (result,) = estimate(drawn, group(counted, np.repeat(list("abcdef"), 50)))
        held.append(result.low[0] <= 0.08 <= result.high[0])
    assert np.mean(held) > 0.9
