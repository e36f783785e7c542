"""Generated samples: reproducible, with classes that differ only in the documented property."""

from __future__ import annotations

import csv
import hashlib

import numpy as np
import pytest
import tifffile
import zarr
from skimage.io import imread
from skimage.measure import regionprops
from skimage.morphology import disk, erosion
from xarray import DataArray

from svetlana_jupyter import samples
from svetlana_jupyter.core.mask_numbers import find_numbering_problem
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.samples import generated


def checksum(sample: samples.Sample) -> str:
    digest = hashlib.sha256()
    for array in (sample.image, sample.mask, sample.classes):
        digest.update(f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


ARRAYS_OF_A_SEED = {
    # Other tools were also timed on the first three.
    "stripes": (lambda: samples.stripes(seed=1, size=1024, count=500, step=42), "bb8322821ede4512"),
    "bright_foci_3d": (lambda: samples.bright_foci_3d(seed=3, shape=(128, 256, 256), count=400), "9677abdfd3d0ade4"),
    "faint_foci": (lambda: samples.faint_foci(seed=4, size=1024, count=500, step=42), "520422338715cf09"),
    "gray_cells": (lambda: samples.gray_cells(1, 256, 15), "433a906954447cc9"),
    "oriented_textures": (lambda: samples.oriented_textures(1, 300, 15), "a89c2a9d14f365c4"),
    "diagonal_textures": (lambda: samples.oriented_textures(1, 300, 15, turn=45), "c701c7d0c336541d"),
    "real_textures": (lambda: samples.real_textures(1, 300, 15), "924c4d2cc69df07d"),
    "tube_and_somites": (lambda: samples.tube_and_somites(1, (24, 80, 100), 60), "d754944b82ab802d"),
}


@pytest.mark.parametrize("name", ARRAYS_OF_A_SEED)
def test_a_seed_gives_the_same_arrays_in_every_version(name):
    make, expected = ARRAYS_OF_A_SEED[name]
    assert checksum(make()) == expected


@pytest.mark.parametrize(
    "make",
    [
        samples.stripes,
        samples.faint_foci,
        samples.bright_foci_3d,
        lambda seed: samples.gray_cells(seed, 300, 20),
        lambda seed: samples.oriented_textures(seed, 400, 20),
        lambda seed: samples.real_textures(seed, 400, 20),
        lambda seed: samples.tube_and_somites(seed, (24, 80, 100), 60),
    ],
)
def test_labels_have_no_gaps_and_classes_have_names(make):
    sample = make(7)
    assert sample.image.shape == sample.mask.shape
    assert np.array_equal(np.unique(sample.mask), np.arange(len(sample.classes) + 1))
    assert set(sample.class_names().values()) == set(sample.names)
    assert list(sample.class_names()) == list(range(1, len(sample.classes) + 1))
    assert checksum(make(7)) == checksum(sample) != checksum(make(8))


def test_gray_cells_differ_only_in_brightness():
    sample = samples.gray_cells(1)
    objects = regionprops(sample.mask, sample.image)
    means = np.array([cell.intensity_mean for cell in objects])
    assert np.array_equal(means > 122, sample.classes == 1)
    areas = np.array([cell.area for cell in objects])
    assert np.ptp([np.median(areas[sample.classes == number]) for number in (0, 1)]) < 0.15 * np.median(areas)


@pytest.mark.parametrize("turn", [0, 45])
def test_oriented_textures_differ_only_in_their_gradients(turn):
    sample = samples.oriented_textures(2, 700, 90, turn=turn)
    down, right = np.gradient(sample.image.astype(float))
    across = down * np.cos(np.radians(turn)) + right * np.sin(np.radians(turn))
    along = right * np.cos(np.radians(turn)) - down * np.sin(np.radians(turn))
    for cell, number in zip(regionprops(sample.mask, sample.image), sample.classes):
        values = sample.image[sample.mask == cell.label].astype(float)
        assert abs(values.mean() - 128) < 1.5
        assert abs(values.std() - 40) < 1.5
        inner = erosion(np.pad(cell.image, 1), disk(2))[1:-1, 1:-1]
        ratio = np.log((across[cell.slice][inner] ** 2).sum() / (along[cell.slice][inner] ** 2).sum())
        assert (ratio < 0) == (number == 1)


def test_real_textures_have_the_same_gray_values_in_every_class():
    sample = samples.real_textures(1, 500, 40)
    quartiles = [
        np.percentile(sample.image[sample.mask == label], (5, 25, 50, 75, 95)) for label in sample.class_names()
    ]
    assert np.ptp(quartiles, axis=0).max() <= 1


def test_the_tube_is_centered_and_its_nuclei_are_elongated():
    sample = samples.tube_and_somites(1, (32, 100, 256), 200)
    nuclei = regionprops(sample.mask)
    from_axis = np.array([abs(nucleus.centroid[2] / 256 - 0.5) for nucleus in nuclei])
    assert from_axis[sample.classes == 0].max() < 0.15 < 0.18 < from_axis[sample.classes == 1].min()
    boxes = np.array([np.subtract(nucleus.bbox[3:], nucleus.bbox[:3]) for nucleus in nuclei])
    lengths = boxes[:, 2] / boxes[:, 1]
    assert np.median(lengths[sample.classes == 0]) > 1.5 > 1.1 > np.median(lengths[sample.classes == 1])


def test_with_equal_axes_nuclei_of_the_tube_are_as_round_as_those_of_somites():
    sample = samples.tube_and_somites(1, (32, 100, 256), 200, equal_axes=True)
    nuclei = regionprops(sample.mask)
    boxes = np.array([np.subtract(nucleus.bbox[3:], nucleus.bbox[:3]) for nucleus in nuclei])
    lengths = boxes[:, 2] / boxes[:, 1]
    assert np.allclose([np.median(lengths[sample.classes == number]) for number in (0, 1)], 1, atol=0.1)


def test_a_well_does_not_depend_on_its_division_into_blocks(tmp_path, monkeypatch):
    stored = []
    for block in (1000, 170):
        monkeypatch.setattr(generated, "BLOCK", block)
        (tmp_path / str(block)).mkdir()
        stored.append(samples.osteoclast_well(tmp_path / str(block), seed=3, size=500, count=40))
    single_block, parts = (zarr.open_array(sample.mask)[:] for sample in stored)
    assert np.array_equal(single_block, parts)
    assert np.array_equal(np.unique(single_block), np.arange(len(stored[0].classes) + 1))
    colors = [zarr.open_array(sample.image)[:] for sample in stored]
    assert np.array_equal(colors[0][:, single_block > 0], colors[1][:, single_block > 0])


def test_activated_cells_of_a_well_have_more_nuclei(tmp_path):
    stored = samples.osteoclast_well(tmp_path, seed=1, size=1000, count=150)
    image, mask = zarr.open_array(stored.image), zarr.open_array(stored.mask)
    assert image.metadata.dimension_names == ("c", "y", "x")
    assert mask.dtype == np.uint16
    nuclei = (image[:] == generated.NUCLEUS[:, None, None]).all(0)
    dark = np.bincount(mask[:][nuclei], minlength=len(stored.classes) + 1)[1:]
    assert np.median(dark[stored.classes == 1]) > 2 * np.median(dark[stored.classes == 0])


def test_stain_and_share_of_activated_cells_of_a_well_can_be_set(tmp_path):
    shares, background = [], []
    for activated, stain in ((0.08, (1, 1, 1)), (0.5, (2, 1, 0.5))):
        folder = tmp_path / str(activated)
        folder.mkdir()
        stored = samples.osteoclast_well(folder, 2, 500, 60, activated, stain)
        shares.append(stored.classes.mean())
        background.append(np.where(zarr.open_array(stored.mask)[:] == 0, zarr.open_array(stored.image)[:], 0))
    assert shares[0] < 0.2 < 0.35 < shares[1] < 0.65
    colors = np.array(background)
    absorbed = -np.log(colors[:, :, ((colors > 0) & (colors < 255)).all((0, 1))] / 255)
    assert np.allclose(np.median(absorbed[1] / absorbed[0], axis=1), (2, 1, 0.5), atol=0.05)


def test_tiles_repeat_a_sample_with_new_labels(tmp_path):
    sample = samples.stripes(1)
    stored = samples.tile_sample(sample, tmp_path, 2, 3)
    mask = zarr.open_array(stored.mask)[:]
    assert zarr.open_array(stored.image).shape == mask.shape == (512, 768)
    assert np.array_equal(zarr.open_array(stored.image)[256:, 512:], sample.image)
    assert np.array_equal(np.unique(mask), np.arange(6 * 25 + 1))
    assert np.array_equal(mask[256:, :256] > 0, sample.mask > 0)
    row, column = np.argwhere(sample.mask == 5)[0]
    assert stored.classes[mask[256 + row, 512 + column] - 1] == sample.classes[5 - 1]


def test_labels_are_drawn_without_replacement():
    sample = samples.stripes(seed=1)
    drawn = samples.draw_labels(sample.mask, 10, seed=2)
    assert len(set(drawn)) == 10
    assert set(drawn) <= set(np.unique(sample.mask)) - {0}


def test_too_many_objects_raise_an_error_with_the_possible_number():
    with pytest.raises(InputError, match="room for 36 objects, but 37 were requested"):
        samples.stripes(seed=1, size=256, count=37)


def test_shipped_smears_are_complete():
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


@pytest.mark.parametrize("name", ARRAYS_OF_A_SEED)
def test_the_numbers_in_a_generated_mask_name_objects(name):
    mask = ARRAYS_OF_A_SEED[name][0]().mask
    table = index_objects(DataArray(mask, dims=list("zyx"[-mask.ndim :])))
    assert find_numbering_problem(table, mask.size, ".tif") is None


def test_the_numbers_in_the_masks_of_the_blood_smears_name_objects():
    files = sorted((samples.blood_smear() / "masks").glob("*.tif"))
    tables = [index_objects(DataArray(tifffile.imread(file), dims=["y", "x"])) for file in files]
    assert len(files) == 12
    assert [find_numbering_problem(table, 10**6, ".tif") for table in tables] == [None] * 12
