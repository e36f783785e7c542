"""Annotated patches: one folder per class, unchanged pixels and type, and a table of files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from svetlana_jupyter.core.io.table_files import read_table
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.project import Project
from tests.project.exporters.conftest import NAMES, flat

if TYPE_CHECKING:
    from pathlib import Path


def table_of(folder: Path) -> pd.DataFrame:
    table = read_table(folder / "patches.csv", "a table")
    files = {str(file.relative_to(folder).as_posix()) for file in folder.rglob("*") if file.is_file()}
    assert files == {*table["file"], "patches.csv"}
    return table


def cropped(image: np.ndarray, row: pd.Series) -> np.ndarray:
    """Return the part of an image (C, ..., y, x) under a patch, reflected at the border."""
    axes = "zyx"[-(image.ndim - 1) :]
    low, high = ([int(row[f"{axis}{end}"]) for axis in axes] for end in "01")
    margin = [(max(0, -a), max(0, b - n)) for a, b, n in zip(low, high, image.shape[1:])]
    wide = np.pad(image, [(0, 0), *margin], mode="reflect")
    starts = [a + before for a, (before, _) in zip(low, margin)]
    return wide[(slice(None), *(slice(a, a + y - x) for a, x, y in zip(starts, low, high)))]


def test_two_channel_patches_are_tiff_files_with_the_image_pixels(predicted: Project, tmp_path: Path) -> None:
    (folder,) = predicted.export(tmp_path / "results", ["patches"])
    table = table_of(folder)
    assert {part.name for part in folder.iterdir()} == {"dim", "%3Dbright %3Cb%3E", "patches.csv"}
    assert table["object"].tolist() == [1, 2, 3, 4, 5, 6]
    assert set(table["image"]) == {NAMES[0]}
    image = flat(0)[0]
    for _, row in table.iterrows():
        assert row["class"] == ["=bright <b>", "dim"][row["object"] % 2]
        assert row["plate"] == "P0"
        with tifffile.TiffFile(folder / row["file"]) as tiff:
            assert tiff.is_imagej
            assert tiff.series[0].axes == "CYX"
            np.testing.assert_array_equal(tiff.asarray(), cropped(image, row))
        center = predicted.objects(NAMES[0]).loc[row["object"]]
        assert abs((row["y0"] + row["y1"] - 1) / 2 - center["y"]) <= 0.5
    assert (table["y0"] < 0).any(), "the border is among them"
    assert len(set(table["y1"] - table["y0"])) == 1


@pytest.mark.parametrize("size", [15, 16])
def test_patches_have_the_configured_size_and_a_centered_object(predicted: Project, tmp_path: Path, size: int) -> None:
    predicted.settings = predicted.settings.changed(patches={"size": size})
    (folder,) = predicted.export(tmp_path / "results", ["patches"])
    table = table_of(folder).set_index("object")
    objects = predicted.objects(NAMES[0]).loc[table.index]
    assert (objects["y"] % 0.5 != 0).any()
    for axis in "yx":
        assert (table[f"{axis}1"] - table[f"{axis}0"] == size).all()
        middle = (table[f"{axis}0"] + table[f"{axis}1"] - 1) / 2
        assert ((middle - objects[axis]).abs() <= 0.5).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_rgb_patches_are_png_files(tmp_path: Path, dtype: type, channels: int) -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[10:20, 10:20] = 1
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (channels, 40, 40)).astype(dtype)
    project = Project(tmp_path / "p.svetlana", classes=["patches.csv"])
    project.add("a", image, mask, "cyx")
    project.annotate("a", 1, "patches.csv")
    (folder,) = project.export(tmp_path / "results", ["patches"])
    (row,) = [row for _, row in pd.read_csv(folder / "patches.csv").iterrows()]
    assert row["file"] == "patches.csv (2)/a_1.png"
    assert not row["test_set"]
    expected = np.moveaxis(cropped(image, row), 0, -1).squeeze()
    if (channels, dtype) == (3, np.uint16):  # Pillow reads these with only eight bits
        import cv2

        pixels = cv2.imread(str(folder / row["file"]), cv2.IMREAD_UNCHANGED)[..., ::-1]
    else:
        with Image.open(folder / row["file"]) as picture:
            pixels = np.asarray(picture)
    assert pixels.dtype == dtype
    np.testing.assert_array_equal(pixels, expected)


def test_patches_of_a_volume_keep_all_planes_and_float_values(volume: Project, tmp_path: Path) -> None:
    (folder,) = volume.export(tmp_path / "results", ["patches"])
    image = volume.pair("vol").image.to_numpy()
    table = table_of(folder)
    assert len(table) == 2
    for _, row in table.iterrows():
        pixels = tifffile.imread(folder / row["file"])
        assert pixels.dtype == np.float32
        np.testing.assert_array_equal(pixels, cropped(image, row)[0])


def test_objects_of_the_test_set_are_marked_in_the_table(
    predicted: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svetlana_jupyter.project.test_set.MIN_ANNOTATED", 5)
    sample = predicted.test_set.draw(10).index
    image, label = sample[0]
    predicted.annotate(image, label, "dim")
    (folder,) = predicted.export(tmp_path / "results", ["patches"])
    table = table_of(folder)
    assert table[table["test_set"]][["image", "object"]].to_numpy().tolist() == [[image, label]]
    assert len(table) == 7


def test_without_annotations_the_export_is_refused(volume: Project, tmp_path: Path) -> None:
    volume.erase("vol", [1, 2])
    with pytest.raises(ProjectError, match="no annotated patches yet"):
        volume.export(tmp_path / "results", ["csv", "patches"])
    assert not (tmp_path / "results").exists()
