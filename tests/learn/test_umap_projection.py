"""Map by UMAP, which is optional: a stand-in for the library shows what it is given and where its places end up."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from svetlana_jupyter.errors import InputError, SettingsError
from svetlana_jupyter.learn import umap_projection
from svetlana_jupyter.learn.umap_projection import umap_map


@dataclass
class Rows:
    """Features of an image in memory; rows of NaN are missing."""

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


class Umap:
    """Stand-in for `umap.UMAP`, which places each object at its first two features."""

    def __init__(self, **options):
        assert options["random_state"] == 0
        self.options = options

    def fit(self, features):
        assert self.options["n_neighbors"] < len(features)
        self.embedding_ = features[:, :2]

    def transform(self, features):
        return features[:, :2]


@pytest.fixture
def library(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Umap))


def images():
    values = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    values[[5, 40]] = np.nan
    return {"a": Rows(values[:20]), "b": Rows(values[20:])}, values


@pytest.mark.parametrize("sample", [1000, 30])
def test_every_object_with_features_has_the_place_that_umap_gives_it(library, monkeypatch, sample):
    monkeypatch.setattr(umap_projection, "SAMPLE", sample)
    monkeypatch.setattr(umap_projection, "_BLOCK", 7)
    parts, values = images()
    made = umap_map(parts)
    np.testing.assert_array_equal(made.coordinates, values[:, :2])
    assert (made.method, made.features, list(made.labels)) == ("UMAP", 4, ["a", "b"])


def test_without_the_library_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(SettingsError, match=r'pip install "svetlana-jupyter\[umap\]"'):
        umap_map(images()[0])


def test_too_few_objects_are_refused(library):
    with pytest.raises(InputError, match="at least 3 objects, got 2"):
        umap_map({"a": Rows(np.ones((2, 3), np.float32))})
