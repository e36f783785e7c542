"""Class maps as TIFF: values, pixel size and colors as read by tifffile and Pillow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pytest
import tifffile
from PIL import Image
from xarray import DataArray

from svetlana_jupyter.core.io.images import open_mask, spacing_of
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.exporters import class_maps as maps
from tests.project.exporters.conftest import NAMES, SPACING

if TYPE_CHECKING:
    from pathlib import Path

    from svetlana_jupyter.project.project import Project


@pytest.fixture(params=["2D", "3D"])
def case(request: pytest.FixtureRequest) -> tuple[Project, str]:
    if request.param == "2D":
        return request.getfixturevalue("predicted"), NAMES[0]
    return request.getfixturevalue("volume"), "vol"


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("name", ["tiff", "ome-tiff"])
def test_a_class_map_is_read_unchanged_with_its_pixel_size(
    case: tuple[Project, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, small: bool
) -> None:
    if small:  # several bands, strips and tiles
        for limit, value in {"BAND_BYTES": 1, "STRIP_ROWS": 8, "TILE": 16}.items():
            monkeypatch.setattr(maps, limit, value)
    project, image = case
    file = project.export(tmp_path / "results", [name])[0]
    codes = project.class_map(image)
    with tifffile.TiffFile(file) as tiff:
        assert (tiff.is_imagej, tiff.is_ome) == (name == "tiff", name == "ome-tiff")
        assert tiff.series[0].axes == "".join(codes.dims).upper()
        assert tiff.series[0].dtype == codes.dtype
        np.testing.assert_array_equal(tiff.asarray(), codes)
        assert tiff.pages[0].is_tiled == (name == "ome-tiff")
    reopened = open_mask(file)
    np.testing.assert_array_equal(reopened, codes)
    assert spacing_of(reopened) == pytest.approx(project.pair(image).spacing)


def test_an_imagej_class_map_has_the_class_colors(predicted: Project, tmp_path: Path) -> None:
    file = predicted.export(tmp_path / "results", ["tiff"])[0]
    codes = predicted.class_map(NAMES[0]).to_numpy()
    assert set(np.unique(codes)) == {0, 1, 2, 255}
    with Image.open(file) as picture:
        np.testing.assert_array_equal(np.asarray(picture), codes)
        shown = np.asarray(picture.convert("RGB"))
    for info in predicted.classes:
        assert {bytes(pixel).hex() for pixel in shown[codes == info.id]} == {info.color[1:]}
    assert not shown[codes == 0].any()
    assert (shown[codes == 255] == 128).all()


def test_an_ome_tiff_names_the_class_codes(predicted: Project, tmp_path: Path) -> None:
    file = predicted.export(tmp_path / "results", ["ome-tiff"])[0]
    described = tifffile.xml2dict(tifffile.tiffcomment(file))["OME"]
    assert described["Image"]["Name"] == f"{NAMES[0]} classes"
    pixels = described["Image"]["Pixels"]
    assert (pixels["PhysicalSizeY"], pixels["PhysicalSizeX"], pixels["PhysicalSizeXUnit"]) == (*SPACING, "µm")
    named = described["StructuredAnnotations"]["MapAnnotation"]["Value"]["M"]
    assert {entry["K"]: entry["value"] for entry in named} == {1: "dim", 2: "=bright <b>", 255: "not predicted"}


def test_an_ome_tiff_has_coarser_levels_with_the_same_codes(
    case: tuple[Project, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "MAX_SMALLEST_LEVEL", 20)
    monkeypatch.setattr(maps, "TILE", 16)
    project, image = case
    file = project.export(tmp_path / "results", ["ome-tiff"])[0]
    codes = project.class_map(image).to_numpy()
    with tifffile.TiffFile(file) as tiff:
        (series,) = tiff.series
        assert len(series.levels) == 3
        for number, level in enumerate(series.levels):
            np.testing.assert_array_equal(level.asarray(), codes[..., :: 2**number, :: 2**number])
    np.testing.assert_array_equal(open_mask(file), codes)


def test_the_mask_of_a_class_is_255_at_its_objects(case: tuple[Project, str], tmp_path: Path) -> None:
    project, image = case
    files = project.export(tmp_path / "results", ["masks"])
    codes = project.class_map(image).to_numpy()
    assert len(files) == len(project.images) * len(project.classes)
    for info, file in zip(project.classes, files):
        mask = tifffile.imread(file)
        assert mask.dtype == np.uint8
        assert file.parent.parent == tmp_path / "results" / "class_masks"
        np.testing.assert_array_equal(mask, np.where(codes == info.id, 255, 0))
        with Image.open(file) as picture:
            assert picture.mode == "L"


@pytest.mark.parametrize("shape", [(100, 30), (5, 60, 30)])
@pytest.mark.parametrize("bound", [1, 500, 4000, 10**9])
def test_bands_are_ordered_multiples_of_the_minimum_height(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], bound: int
) -> None:
    monkeypatch.setattr(maps, "BAND_BYTES", bound)
    pixels = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    array = DataArray(da.from_array(pixels, chunks=(2, 7, 9)[-len(shape) :]), dims=("z", "y", "x")[-len(shape) :])
    bands = list(maps.iter_bands(array, 8))
    np.testing.assert_array_equal(np.concatenate(bands), pixels.reshape(-1, shape[-1]))
    assert max(band.nbytes for band in bands) <= max(bound, 8 * 30 * 2)


def test_a_plane_too_large_for_imagej_is_refused_before_any_work(
    predicted: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "MAX_IMAGEJ_PIXELS", 3000)
    with pytest.raises(ProjectError, match=r"50 × 70 pixels per plane.* Export \"ome-tiff\""):
        predicted.export(tmp_path / "results", ["csv", "tiff"])
    assert not (tmp_path / "results").exists()
    assert predicted.export(tmp_path / "results", ["ome-tiff"])
