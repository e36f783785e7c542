"""Typed and pasted paths, folders in the place of patterns, and image and mask in the wrong order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from svetlana_jupyter.core.io.file_pairs import find_pairs
from svetlana_jupyter.core.io.image_pair import open_pair, preview_pairs
from svetlana_jupyter.core.io.swapped_pair import SWAPPED
from svetlana_jupyter.core.io.typed_paths import clean_path
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.project import Project
from tests.widgets.conftest import squares


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def create(*paths: str) -> None:
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def pairs(images: str, masks: str) -> dict[str, tuple[str, str, str]]:
    table = find_pairs(images, masks)
    return {row["name"]: (str(row["image"]), str(row["mask"]), row["problem"]) for _, row in table.iterrows()}


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        (r'"C:\x y\{well}.tif"', "C:/x y/{well}.tif"),
        ("  'data/A1.tif'\n", "data/A1.tif"),
        ("“data/A1.tif”", "data/A1.tif"),
        ('"data/A1.tif', "data/A1.tif"),
        ("\u202adata/A1.tif", "data/A1.tif"),
        ("file:///data/my%20wells/%7Bwell%7D.tif", "/data/my wells/{well}.tif"),
        ("file://localhost/data/A1.tif", "/data/A1.tif"),
        ("file:///C:/data/A1.tif", "C:/data/A1.tif"),
        ("file://server/share/A1.tif", "//server/share/A1.tif"),
        (r"my\ wells/A1.tif", "my wells/A1.tif"),
        ("data/", "data"),
        ("data/50% A1.tif", "data/50% A1.tif"),
        (Path("data/A1.tif"), "data/A1.tif"),
    ],
)
def test_a_pasted_path_is_cleaned(folder, typed, path):
    assert clean_path(typed) == path


def test_home_is_replaced_and_an_existing_file_is_taken_as_it_is(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert clean_path(" '~/A1.tif' ") == (folder / "A1.tif").as_posix()
    create("'quoted'.tif", "blank .tif ")
    assert clean_path("'quoted'.tif") == "'quoted'.tif"
    assert clean_path("blank .tif ") == "blank .tif "


@pytest.mark.parametrize("mask", ["{}.tif", "{}_mask.tif", "{}_cp_masks.png", "seg-{}.npy", "{}.ome.tif"])
def test_two_folders_are_paired_by_their_names(folder, mask):
    names = ["A1", "A10", "drug_0.5uM", "drug_0.05uM"]
    create(*(f"images/{name}.tif" for name in names), *(f"masks/{mask.format(name)}" for name in names))
    expected = {name: (f"images/{name}.tif", f"masks/{mask.format(name)}", "") for name in names}
    assert pairs("images/", " 'masks' ") == expected


def test_a_folder_of_both_is_divided_by_the_ending_of_the_masks(folder):
    create(*(f"wells/{name}{end}.tif" for name in ("A1", "A2", "A1 b") for end in ("", "_mask")))
    assert pairs("wells", "wells") == {
        name: (f"wells/{name}.tif", f"wells/{name}_mask.tif", "") for name in ("A1", "A1 b", "A2")
    }


def test_a_folder_is_completed_by_the_pattern_of_the_other(folder):
    create("images/A1.tif", "images/A2.tif", "masks/A1_mask.tif", "masks/A2_mask.tif")
    expected = {name: (f"images/{name}.tif", f"masks/{name}_mask.tif", "") for name in ("A1", "A2")}
    assert pairs("images", "masks/{well}_mask.tif") == expected
    assert pairs("images/{well}.tif", "masks") == expected
    assert find_pairs("images/{well}.tif", "masks")["well"].tolist() == ["A1", "A2"]


def test_an_image_without_a_mask_is_reported_in_a_folder_too(folder):
    create("images/A1.tif", "images/A2.tif", "images/A3.tif", "masks/A1_mask.tif", "masks/A2_mask.tif")
    assert "masks/A3_mask.tif" in pairs("images", "masks")["A3"][2]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images/A1.tif", "masks/A1_mask.tif"),
        ("images/A1.tif", "masks"),
        ("images/A1.tif", "masks/{well}_mask.tif"),
        ("images/A1.tif", "masks/*_mask.tif"),
        ("images", "masks/A1_mask.tif"),
        ('"images/A1.tif"', "'masks/A1_mask.tif' "),
    ],
)
def test_a_single_image_takes_its_mask(folder, images, masks):
    create("images/A1.tif", "images/A10.tif", "masks/A1_mask.tif", "masks/A10_mask.tif")
    assert pairs(images, masks) == {"A1": ("images/A1.tif", "masks/A1_mask.tif", "")}


@pytest.mark.parametrize("placeholder", ["name", "image"])
def test_the_placeholder_name_names_the_images_and_is_no_column(folder, placeholder):
    create("images/A1.tif", "images/A2.tif", "masks/A1.tif", "masks/A2.tif", "p/1/A1.tif", "p/2/A1.tif")
    create("q/1/A1.tif", "q/2/A1.tif")
    own = f"{{{placeholder}}}.tif"
    table = find_pairs(f"images/{own}", f"masks/{own}")
    assert list(table) == ["name", "image", "mask", "channels", "problem"]
    assert pairs(f"images/{own}", f"masks/{own}")["A2"] == ("images/A2.tif", "masks/A2.tif", "")
    table = find_pairs(f"p/{{plate}}/{own}", f"q/{{plate}}/{own}")
    assert table[["name", "plate", "problem"]].to_numpy().tolist() == [["1_A1", "1", ""], ["2_A1", "2", ""]]


@pytest.mark.parametrize(
    ("files", "images", "masks", "message"),
    [
        (["i/A1.tif", "i/A2.png", "m/A1.tif"], "i", "m", r"several types: \.png \(1\), \.tif \(1\)|\.tif \(1\), \.png"),
        (["i/A1.tif", "m/A1_cyto.tif", "m/A1_nuc.tif"], "i", "m", "'…_cyto' and '…_nuc'|'…_nuc' and '…_cyto'"),
        (["i/A1.tif", "m/A10_mask.tif"], "i", "m", "no name of an image"),
        (["i/A1.tif", "m/A1_x.tif", "m/A1_y.tif"], "i/A1.tif", "m", "fits A1_x.tif, A1_y.tif in 'm', expected one"),
        (["i/A1.tif", "m/A10.tif"], "i/A1.tif", "m", "fits no file in 'm'"),
        (["i/notes.txt", "m/A1.tif"], "i", "m", "'i' contains no image"),
        (["i/A1.tif", "m/1/A1.tif"], "i", "m/{plate}/{well}.tif", "no or several placeholders"),
    ],
)
def test_names_that_do_not_fit_are_refused_with_what_was_found(folder, files, images, masks, message):
    create(*files)
    with pytest.raises(InputError, match=message):
        find_pairs(images, masks)


def noisy(seed: int) -> tuple[np.ndarray, np.ndarray]:
    image, mask = squares(seed)
    return image.astype(np.uint16), mask


@pytest.mark.parametrize("make", [squares, noisy])
def test_image_and_mask_in_the_wrong_order_are_refused(folder, make):
    image, mask = make(0)
    tifffile.imwrite("image.tif", image)
    tifffile.imwrite("mask.tif", mask)
    with pytest.raises(InputError, match="seem to be swapped"):
        open_pair("A1", mask, image)
    assert preview_pairs("mask.tif", "image.tif")["problem"].tolist() == [SWAPPED]
    assert preview_pairs("image.tif", "mask.tif")["problem"].tolist() == [""]
    project = Project("swapped.svetlana")
    with pytest.raises(InputError, match="seem to be swapped"):
        project.add_images("mask.tif", "image.tif")
    assert not project.images


def test_flat_images_and_large_objects_are_not_mistaken_for_swapped_ones():
    _, mask = squares(0)
    assert open_pair("flat", (mask > 0).astype(np.uint8) * 200, mask).name == "flat"
    assert open_pair("same", mask, mask).name == "same"
    dark = np.zeros_like(mask)
    dark[:8, :8] = 3
    assert open_pair("dark", dark, mask).name == "dark"


def test_skipped_pairs_are_a_warning_with_a_reason(folder):
    for name in ("A1", "A2"):
        tifffile.imwrite(f"{name}.tif", squares(0)[0])
    tifffile.imwrite("A1_mask.tif", squares(0)[1])
    project = Project("wells.svetlana")
    with pytest.warns(UserWarning, match=r"1 of 2 pairs were skipped\. A2: No mask was found") as seen:
        project.add_images("{well}.tif", "{well}_mask.tif")
    assert project.status == str(seen[0].message)
    assert list(project.images) == ["A1"]
