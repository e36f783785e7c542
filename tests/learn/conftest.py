"""Small image pairs with two classes of objects: bright and dark disks or balls."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from svetlana_jupyter.core.io.image_pair import ImagePair, open_pair
from svetlana_jupyter.core.objects import index_objects

AnnotatedImage = tuple[ImagePair, pd.DataFrame, pd.Series]


def two_classes(ndim: int, seed: int = 0, channels: int = 1, name: str = "cells") -> AnnotatedImage:
    """Return balls on a lattice; class 7 is brighter than class 4."""
    rng = np.random.default_rng(seed)
    cell, radius = (16, 5) if ndim == 2 else (12, 3)
    shape = (7 * cell,) * 2 if ndim == 2 else (2 * cell, 4 * cell, 4 * cell)
    grid = np.meshgrid(*map(np.arange, shape), indexing="ij")
    inside = sum((axis % cell - cell // 2) ** 2 for axis in grid) <= radius**2
    numbers = np.ravel_multi_index([axis // cell for axis in grid], [side // cell for side in shape])
    mask = np.where(inside, 3 * numbers + 2, 0).astype(np.uint16)  # labels with gaps
    labels = np.unique(mask)[1:]
    bright = rng.permutation(len(labels)) < len(labels) // 2
    image = rng.normal(100, 10, (channels, *shape))
    image += 60 * inside + 80 * np.isin(mask, labels[bright])
    names = [f"channel {number}" for number in range(1, channels + 1)]
    pair = open_pair(name, image.astype(np.float32), mask, axes="c" + "zyx"[-ndim:], channels=names)
    return pair, index_objects(pair.mask), pd.Series(np.where(bright, 7, 4), index=labels)


@pytest.fixture
def discs() -> AnnotatedImage:
    return two_classes(2)


@pytest.fixture
def balls() -> AnnotatedImage:
    return two_classes(3)


@pytest.fixture(params=[2, 3], ids=["2D", "3D"])
def annotated_image(request) -> AnnotatedImage:
    return two_classes(request.param)
