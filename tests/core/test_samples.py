"""Samples: the same seed gives the same arrays, and the classes differ in what the sample says they do."""

from __future__ import annotations

import csv
import hashlib

import numpy as np
import pytest
import tifffile
from skimage.io import imread

from svetlana_jupyter.core import samples
from svetlana_jupyter.errors import InputError


def checksum(sample: samples.Sample) -> str:
    digest = hashlib.sha256()
    for array in (sample.image, sample.mask, sample.classes):
        digest.update(f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: samples.stripes(seed=1, size=1024, count=500, step=42), "bb8322821ede4512"),
        (lambda: samples.bright_foci_3d(seed=3, shape=(128, 256, 256), count=400), "9677abdfd3d0ade4"),
        (lambda: samples.faint_foci(seed=4, size=1024, count=500, step=42), "520422338715cf09"),
    ],
    ids=["a stripes", "c bright foci", "d faint foci"],
)
def test_arrays_are_those_that_other_tools_were_timed_on(make, expected):
    assert checksum(make()) == expected


@pytest.mark.parametrize("make", [samples.stripes, samples.faint_foci, samples.bright_foci_3d])
def test_labels_are_without_gaps_and_classes_have_names(make):
    sample = make(7)
    assert sample.image.shape == sample.mask.shape
    assert np.array_equal(np.unique(sample.mask), np.arange(len(sample.classes) + 1))
    assert set(sample.class_names().values()) == set(sample.names)
    assert checksum(make(7)) == checksum(sample) != checksum(make(8))


def test_drawn_labels_are_objects_drawn_once():
    sample = samples.stripes(seed=1)
    drawn = samples.draw_labels(sample.mask, 10, seed=2)
    assert len(set(drawn)) == 10
    assert set(drawn) <= set(np.unique(sample.mask)) - {0}


def test_too_many_objects_are_refused_with_the_number_of_places():
    with pytest.raises(InputError, match="36 places for objects, 37 were asked"):
        samples.stripes(seed=1, size=256, count=37)


def test_shipped_smears_are_whole():
    folder = samples.blood_smear()
    names = sorted(path.stem for path in (folder / "images").glob("*.png"))
    assert len(names) == 12
    counts: dict[str, int] = {}
    for name in names:
        mask = tifffile.imread(folder / "masks" / f"{name}.tif")
        assert imread(folder / "images" / f"{name}.png").shape == (*mask.shape, 3)
        with open(folder / "classes" / f"{name}.csv", encoding="utf-8", newline="") as file:
            classes = {int(row["label"]): row["class"] for row in csv.DictReader(file)}
        assert set(classes) == set(np.unique(mask)) - {0}
        for class_name in classes.values():
            counts[class_name] = counts.get(class_name, 0) + 1
    assert counts == {"RBC": 142, "platelet": 33, "WBC": 18}
    assert "Permission is hereby granted" in (folder / "SOURCE.md").read_text(encoding="utf-8")
