"""Principal axes of features, compared with a full decomposition and with scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from svetlana_jupyter.core.features import projection
from svetlana_jupyter.core.features.projection import SAMPLE, fit_principal_axes, pca_map, read_sample
from svetlana_jupyter.errors import InputError


@dataclass
class Rows:
    """Features of an image in memory; rows of NaN are missing, and read as other numbers."""

    values: np.ndarray

    @property
    def labels(self):
        return pd.RangeIndex(1, 1 + len(self.values))

    @property
    def is_present(self):
        return np.isfinite(self.values).all(axis=1)

    def read(self, positions):
        assert self.is_present[positions].all()
        return self.values[positions]

    def project(self, weights, rows):
        return np.nan_to_num(self.values[rows]) @ weights


def places_of(features):
    return pca_map({"well": Rows(features)}).coordinates


def cloud(n: int, dimensions: int, seed: int = 0) -> np.ndarray:
    """Return points with a different spread along every one of some random directions."""
    random = np.random.default_rng(seed)
    directions = np.linalg.qr(random.normal(size=(dimensions, dimensions)))[0]
    return (random.normal(size=(n, dimensions)) * 2.0 ** -np.arange(dimensions) @ directions + 3).astype(np.float32)


@pytest.mark.parametrize(("n", "dimensions"), [(500, 12), (20, 60), (40, 2), (3, 5)])
def test_points_and_explained_variance_are_those_of_scikit_learn(n, dimensions):
    features = cloud(n, dimensions)
    axes, peer = fit_principal_axes(features), PCA(2, svd_solver="full").fit(features.astype(float))
    places, expected = places_of(features), peer.transform(features.astype(float))
    expected *= np.sign((places * expected).sum(axis=0))  # mirrored maps are equal
    np.testing.assert_allclose(places, expected, atol=2e-5)
    np.testing.assert_allclose(axes.explained, peer.explained_variance_ratio_, atol=1e-6)
    np.testing.assert_allclose(axes.axes.T @ axes.axes, np.eye(2), atol=1e-5)


def test_a_single_feature_gives_points_on_a_line():
    values = np.array([[1.0], [2.0], [4.0], [9.0]], np.float32)
    places = places_of(values)
    np.testing.assert_allclose(places[:, 0], values[:, 0] - 4, atol=1e-6)
    np.testing.assert_allclose(places[:, 1], 0, atol=1e-6)


@given(st.integers(0, 1000), st.integers(2, 9))
def test_the_largest_entry_of_each_axis_is_positive_and_every_call_gives_the_same_bytes(seed, dimensions):
    features = cloud(30, dimensions, seed)
    first, second = fit_principal_axes(features), fit_principal_axes(features)
    assert first.axes.tobytes() == second.axes.tobytes()
    assert (first.axes[np.abs(first.axes).argmax(axis=0), [0, 1]] > 0).all()
    mirrored = fit_principal_axes(-features)
    np.testing.assert_allclose(mirrored.axes, first.axes, atol=1e-4)


@pytest.mark.parametrize("size", [1, 7, 50, 200])
def test_blocks_do_not_change_the_points(size, monkeypatch):
    features = cloud(101, 6)
    whole = places_of(features)
    monkeypatch.setattr(projection, "_BLOCK", size)
    np.testing.assert_allclose(places_of(features), whole, atol=1e-6)


def test_objects_without_features_have_no_place_and_do_not_move_the_others():
    features = cloud(80, 5)
    gaps = features.copy()
    gaps[[3, 7, 9]] = np.nan
    rest = np.setdiff1d(np.arange(80), [3, 7, 9])
    places = places_of(gaps)
    assert np.isnan(places[[3, 7, 9]]).all()
    np.testing.assert_allclose(places[rest], places_of(features[rest]), atol=1e-5)


def test_images_follow_each_other_and_share_their_axes():
    features = cloud(90, 5)
    parts = {"a": Rows(features[:20]), "empty": Rows(features[:0]), "b": Rows(features[20:])}
    made = pca_map(parts)
    np.testing.assert_allclose(made.coordinates, places_of(features), atol=1e-5)
    assert {name: len(labels) for name, labels in made.labels.items()} == {"a": 20, "empty": 0, "b": 70}
    assert (made.method, made.features) == ("PCA", 5)


def test_too_few_objects_and_equal_objects_are_refused():
    with pytest.raises(InputError, match=r"at least 3 objects, got 2"):
        fit_principal_axes(cloud(2, 4))
    with pytest.raises(InputError, match=r"All 6 objects have the same features"):
        fit_principal_axes(np.full((6, 4), 0.1, np.float32))
    with pytest.raises(InputError, match=r"got 0"):
        pca_map({})
    with pytest.raises(InputError, match=r"got 0"):
        pca_map({"well": Rows(np.full((4, 3), np.nan, np.float32))})


def test_the_axes_are_fitted_to_a_sample_and_every_object_is_shown():
    features = cloud(5000, 6)
    sample = read_sample({"a": Rows(features[:1000]), "b": Rows(features[1000:])}, SAMPLE)
    np.testing.assert_array_equal(sample, read_sample({"well": Rows(features)}, SAMPLE))
    assert len(sample) == len(np.unique(sample, axis=0)) == SAMPLE
    axes = fit_principal_axes(sample)
    np.testing.assert_allclose(places_of(features), (features - axes.mean) @ axes.axes, atol=1e-5)
    complete = fit_principal_axes(features)
    assert np.abs(axes.axes - complete.axes).max() < 0.1, "near the map that all objects would give"


@pytest.mark.parametrize("finished", [3, 300, 1500])
def test_a_map_of_few_finished_objects_is_fitted_to_these(finished):
    features = np.full((5000, 6), np.nan, np.float32)
    features[4000 - finished : 4000] = cloud(finished, 6)
    places = places_of(features)
    assert np.isfinite(places).all(axis=1).nonzero()[0].tolist() == list(range(4000 - finished, 4000))
    expected = places_of(features[4000 - finished : 4000])
    np.testing.assert_allclose(places[4000 - finished : 4000], expected, atol=1e-5)
