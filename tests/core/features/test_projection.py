"""Principal axes of features, compared with a full decomposition and with scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from svetlana_jupyter.core.features.projection import (
    SAMPLE,
    complete_sample,
    fit_principal_axes,
    pca_map,
    project_blocks,
)
from svetlana_jupyter.errors import InputError


def cloud(n: int, dimensions: int, seed: int = 0) -> np.ndarray:
    """Return points with a different spread along every one of some random directions."""
    random = np.random.default_rng(seed)
    directions = np.linalg.qr(random.normal(size=(dimensions, dimensions)))[0]
    return (random.normal(size=(n, dimensions)) * 2.0 ** -np.arange(dimensions) @ directions + 3).astype(np.float32)


@pytest.mark.parametrize(("n", "dimensions"), [(500, 12), (20, 60), (40, 2), (3, 5)])
def test_points_and_explained_variance_are_those_of_scikit_learn(n, dimensions):
    features = cloud(n, dimensions)
    axes, peer = fit_principal_axes(features), PCA(2, svd_solver="full").fit(features.astype(float))
    places, expected = project_blocks([features], axes), peer.transform(features.astype(float))
    expected *= np.sign((places * expected).sum(axis=0))  # mirrored maps are equal
    np.testing.assert_allclose(places, expected, atol=2e-5)
    np.testing.assert_allclose(axes.explained, peer.explained_variance_ratio_, atol=1e-6)
    np.testing.assert_allclose(axes.axes.T @ axes.axes, np.eye(2), atol=1e-5)


def test_a_single_feature_gives_points_on_a_line():
    values = np.array([[1.0], [2.0], [4.0], [9.0]], np.float32)
    places = project_blocks([values], fit_principal_axes(values))
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
def test_blocks_do_not_change_the_points(size):
    features = cloud(101, 6)
    axes = fit_principal_axes(features)
    blocks = (features[start : start + size] for start in range(0, 101, size))
    np.testing.assert_allclose(project_blocks(blocks, axes), axes.project(features), atol=1e-6)
    assert project_blocks([], axes).shape == (0, 2)


def test_objects_without_features_have_no_place_and_do_not_move_the_others():
    features = cloud(80, 5)
    gaps = features.copy()
    gaps[3] = np.nan
    gaps[7, 2] = np.inf
    gaps[9, 0] = np.nan
    rest = np.setdiff1d(np.arange(80), [3, 7, 9])
    axes = fit_principal_axes(gaps)
    places = axes.project(gaps)
    assert np.isnan(places[[3, 7, 9]]).all()
    np.testing.assert_allclose(places[rest], fit_principal_axes(features[rest]).project(features[rest]), atol=1e-5)


def test_too_few_objects_and_equal_objects_are_refused():
    features = cloud(5, 4)
    features[2:] = np.nan
    with pytest.raises(InputError, match=r"at least 3 objects, got 2"):
        fit_principal_axes(features)
    with pytest.raises(InputError, match=r"All 6 objects have the same features"):
        fit_principal_axes(np.full((6, 4), 0.1, np.float32))


@dataclass
class Matrix:
    """Feature matrix in memory, which counts how many rows were read."""

    values: np.ndarray
    read: int = 0

    @property
    def ids(self):
        return pd.MultiIndex.from_product([["well"], range(1, 1 + len(self.values))], names=["image", "object"])

    @property
    def names(self):
        return [f"feature {i}" for i in range(self.values.shape[1])]

    def rows(self, positions):
        self.read += len(positions)
        return self.values[positions]

    def blocks(self, size=1000):
        for start in range(0, len(self.values), size):
            yield self.values[start : start + size]


def test_a_map_is_fitted_to_a_sample_and_shows_every_object():
    matrix = Matrix(cloud(5000, 6))
    made = pca_map(matrix)
    assert (made.method, made.features, len(made.ids)) == ("PCA", 6, 5000)
    assert matrix.read == SAMPLE
    complete = fit_principal_axes(matrix.values).project(matrix.values)
    assert np.abs(made.coordinates - complete).max() < 0.3, "near the map that all objects would give"
    np.testing.assert_array_equal(pca_map(Matrix(matrix.values)).coordinates, made.coordinates)


def test_a_map_of_few_finished_objects_is_fitted_to_these():
    values = np.full((5000, 6), np.nan, np.float32)
    values[4000:4100] = cloud(100, 6)
    made = pca_map(Matrix(values))
    assert np.isfinite(made.coordinates).all(axis=1).nonzero()[0].tolist() == list(range(4000, 4100))
    expected = fit_principal_axes(values[4000:4100]).project(values[4000:4100])
    np.testing.assert_allclose(made.coordinates[4000:4100], expected, atol=1e-5)


@pytest.mark.parametrize("finished", [0, 1500, 2600, 5000])
def test_a_sample_holds_only_complete_rows_each_once(finished):
    values = cloud(5000, 3)
    values[finished:] = np.nan
    sample = complete_sample(Matrix(values), 500)
    assert np.isfinite(sample).all()
    assert len(np.unique(sample, axis=0)) == len(sample)
    assert min(finished, 250) <= len(sample) <= 500


def test_a_project_without_objects_has_no_map():
    with pytest.raises(InputError, match="got 0"):
        pca_map(Matrix(np.empty((0, 4), np.float32)))
