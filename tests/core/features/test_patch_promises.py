"""Allowed cues of blob and oriented features: classifiers learn nothing from a cue that is not allowed."""

from __future__ import annotations

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
from svetlana_jupyter.core.features.patch_features import iter_blob_features
from svetlana_jupyter.core.io.image_pair import open_pair
from svetlana_jupyter.core.objects import index_objects
from tests.benchmarks.evidence_sets import evidence_set, tiny_objects

if TYPE_CHECKING:
    from svetlana_jupyter.samples import Sample

CHANCE, SEEN = 0.65, 0.8
SEEDS = (0, 1)


def score(sample: Sample, forbidden: str | None, compute=iter_blob_features) -> list[float]:
    """Return the balanced accuracy of a forest and of least squares on the half without labels."""
    pair = open_pair("x", sample.image, sample.mask, axes="zyx"[-sample.mask.ndim :])
    objects, may_use = index_objects(pair.mask), set(CUES) - {forbidden}
    fitted = fit_patches([(pair, objects)], may_use)
    labels, features = (np.concatenate(part) for part in zip(*compute(pair, objects, fitted, may_use)))
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


def mean_scores(make, forbidden: str | None, **arguments) -> np.ndarray:
    return np.mean([score(make(seed), forbidden, **arguments) for seed in SEEDS], axis=0)


@pytest.mark.parametrize("ndim", [2])
@pytest.mark.parametrize("cue", ["brightness", "surroundings", "size"])
def test_a_cue_that_is_not_allowed_tells_nothing(cue, ndim):
    assert mean_scores(lambda seed: evidence_set(cue, ndim, seed=seed), cue).max() <= CHANCE
    assert mean_scores(lambda seed: evidence_set(cue, ndim, seed=seed), None).max() >= SEEN


@pytest.mark.parametrize("ndim", [2])
@pytest.mark.parametrize("cue", ["brightness", "surroundings", "size"])
def test_a_cue_that_is_not_allowed_tells_nothing_of_the_smallest_objects(cue, ndim):
    widths = (3, 5) if cue == "size" else (3, 3)
    assert mean_scores(lambda seed: tiny_objects(cue, ndim, widths, seed=seed), cue).max() <= CHANCE
    assert mean_scores(lambda seed: tiny_objects(cue, ndim, widths, seed=seed), None).max() >= SEEN


@pytest.mark.parametrize("ndim", [2])
@pytest.mark.parametrize("make", [evidence_set, tiny_objects])
def test_blob_features_do_not_tell_the_orientation(make, ndim):
    assert mean_scores(lambda seed: make("orientation", ndim, seed=seed), "orientation").max() <= CHANCE


@pytest.mark.parametrize("ndim", [2])
@pytest.mark.parametrize("cue", CUES)
def test_spots_are_seen_whatever_is_not_allowed(cue, ndim):
    assert mean_scores(lambda seed: evidence_set("texture", ndim, seed=seed), cue).min() >= SEEN
