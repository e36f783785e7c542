"""Allowed cues of blob and oriented features: classifiers learn nothing from a cue that is not allowed."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from svetlana_jupyter.core.features.catalog import CUES
from svetlana_jupyter.core.features.object_patches import fit_patches
from svetlana_jupyter.core.features.patch_features import iter_patch_features
from svetlana_jupyter.core.io.image_pair import open_pair
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.errors import PatchError
from tests.benchmarks.evidence_sets import evidence_set, tiny_objects

if TYPE_CHECKING:
    from svetlana_jupyter.samples import Sample

COUNT = 200
CHANCE, SEEN = 0.65, 0.8
SEEDS = (0, 1)


def score(sample: Sample, forbidden: str | None, block: str = "blob") -> list[float]:
    """Return the balanced accuracy of a forest and of least squares on the half without labels."""
    pair = open_pair("x", sample.image, sample.mask, axes="zyx"[-sample.mask.ndim :])
    objects, may_use = index_objects(pair.mask), set(CUES) - {forbidden}
    fitted = fit_patches([(pair, objects)], may_use)
    found = [(labels, blocks[block]) for labels, blocks in iter_patch_features(pair, objects, fitted, [block], may_use)]
    labels, features = (np.concatenate(part) for part in zip(*found))
    classes = sample.classes[labels - 1]
    labeled, others = np.array_split(np.random.default_rng(0).permutation(len(labels)), 2)
    forest = RandomForestClassifier(60, random_state=0)
    squares = make_pipeline(StandardScaler(), RidgeClassifier(30))
    return [
        balanced_accuracy_score(
            classes[others], model.fit(features[labeled], classes[labeled]).predict(features[others])
        )
        for model in (forest, squares)
    ]


cached_set, cached_tiny_objects = cache(evidence_set), cache(tiny_objects)


def mean_scores(make, forbidden: str | None, **arguments) -> np.ndarray:
    return np.mean([score(make(seed), forbidden, **arguments) for seed in SEEDS], axis=0)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("cue", ["brightness", "surroundings", "size"])
def test_a_cue_that_is_not_allowed_tells_nothing(cue, ndim):
    assert mean_scores(lambda seed: cached_set(cue, ndim, COUNT, seed), cue).max() <= CHANCE
    assert max(score(cached_set(cue, ndim, COUNT, 0), None)) >= SEEN


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("cue", ["brightness", "surroundings", "size"])
def test_a_cue_that_is_not_allowed_tells_nothing_of_the_smallest_objects(cue, ndim):
    widths = (3, 5) if cue == "size" else (3, 3)
    assert mean_scores(lambda seed: cached_tiny_objects(cue, ndim, widths, COUNT, seed), cue).max() <= CHANCE
    assert max(score(cached_tiny_objects(cue, ndim, widths, COUNT, 0), None)) >= SEEN


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("make", [evidence_set, tiny_objects])
def test_blob_features_do_not_tell_the_orientation(make, ndim):
    assert mean_scores(lambda seed: make("orientation", ndim, count=COUNT, seed=seed), "orientation").max() <= CHANCE


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("cue", CUES)
def test_spots_are_seen_whatever_is_not_allowed(cue, ndim):
    assert min(score(cached_set("texture", ndim, COUNT, 0), cue)) >= SEEN


@pytest.mark.parametrize("make", [evidence_set, tiny_objects])
def test_oriented_features_see_the_orientation(make):
    assert mean_scores(lambda seed: make("orientation", count=COUNT, seed=seed), None, block="oriented").min() >= SEEN


@pytest.mark.parametrize("cue", ["brightness", "surroundings", "size"])
@pytest.mark.parametrize("make", [evidence_set, tiny_objects])
def test_oriented_features_do_not_tell_a_cue_that_is_not_allowed(make, cue):
    widths = {"widths": (3, 5)} if make is tiny_objects and cue == "size" else {}
    scores = mean_scores(lambda seed: make(cue, count=COUNT, seed=seed, **widths), cue, block="oriented")
    assert scores.max() <= CHANCE


def test_oriented_features_are_refused_without_orientation_and_in_3d():
    for ndim, may_use, reason in ((2, {"size"}, "not an allowed cue"), (3, CUES, "3D")):
        sample = tiny_objects("size", ndim, count=4)
        pair = open_pair("x", sample.image, sample.mask, axes="zyx"[-ndim:])
        objects = index_objects(pair.mask)
        with pytest.raises(PatchError, match=reason):
            iter_patch_features(pair, objects, fit_patches([(pair, objects)]), ["oriented"], may_use)


def test_the_order_and_values_do_not_depend_on_the_number_of_threads():
    sample = evidence_set("texture", 2, 60)
    pair = open_pair("x", sample.image, sample.mask, axes="yx")
    objects = index_objects(pair.mask)
    fitted = fit_patches([(pair, objects)])
    blocks = ("blob", "oriented")
    one, three = (list(iter_patch_features(pair, objects, fitted, blocks, threads=threads)) for threads in (1, 3))
    assert len(one) > 3
    for (labels, features), (other_labels, others) in zip(one, three, strict=True):
        np.testing.assert_array_equal(labels, other_labels)
        assert set(features) == set(blocks)
        for block in blocks:
            np.testing.assert_array_equal(features[block], others[block])
