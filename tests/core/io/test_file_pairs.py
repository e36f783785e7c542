"""Pairing of images and masks by file name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svetlana_jupyter.core.io.file_pairs import FilePattern, find_pairs
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def create_files(*names):
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def row(table: pd.DataFrame, name: str) -> pd.Series:
    return table.set_index("name").loc[name]


def test_placeholders_pair_name_and_group_in_natural_order(folder):
    create_files("wells/P1_B10.tif", "wells/P1_B2.tif", "masks/P1_B2_cp_masks.tif", "masks/P1_B10_cp_masks.tif")

    table = find_pairs("wells/{plate}_{well}.tif", "masks/{plate}_{well}_cp_masks.tif")

    assert list(table) == ["name", "image", "mask", "plate", "well", "channels", "problem"]
    assert table["name"].tolist() == ["P1_B2", "P1_B10"]
    assert row(table, "P1_B10")[["image", "mask", "plate", "well", "problem"]].tolist() == [
        Path("wells/P1_B10.tif"),
        Path("masks/P1_B10_cp_masks.tif"),
        "P1",
        "B10",
        "",
    ]


def test_file_names_in_different_unicode_forms_are_paired(folder):
    composed, decomposed = (normalize(form, "Zürich") for form in ("NFC", "NFD"))
    create_files(f"images/{decomposed}.tif", f"masks/{composed}.tif")
    table = find_pairs("images/{city}.tif", "masks/{city}.tif")
    assert table["name"].tolist() == table["city"].tolist() == [composed]
    assert table["image"].tolist() == [Path(f"images/{decomposed}.tif")]


def test_an_unpaired_file_is_a_row_that_names_the_expected_file(folder):
    create_files("w/A1.tif", "w/A2.tif", "m/A2.png", "m/A3.png")

    table = find_pairs("w/{well}.tif", "m/{well}.png")

    assert table["name"].tolist() == ["A1", "A2", "A3"]
    assert row(table, "A1")["mask"] is None
    assert "expected m/A1.png" in row(table, "A1")["problem"]
    assert row(table, "A3")["image"] is None
    assert "expected w/A3.tif" in row(table, "A3")["problem"]
    assert row(table, "A3")["well"] == "A3"
    assert row(table, "A3")["mask"] == Path("m/A3.png")


def test_masks_in_the_image_folder_are_not_paired_as_images(folder):
    create_files("a.tif", "a_masks.tif", "b.tif", "b_masks.tif")

    table = find_pairs("{well}.tif", "{well}_masks.tif")

    assert table["name"].tolist() == ["a", "b"]
    assert not table["problem"].any()


def test_images_in_the_mask_folder_are_not_paired_as_masks(folder):
    create_files("a.tif", "a_raw.tif")

    assert find_pairs("{well}_raw.tif", "{well}.tif")["mask"].tolist() == [Path("a.tif")]


def test_a_channel_placeholder_stacks_files_in_natural_order(folder):
    create_files("B2_c10.tif", "B2_c2.tif", "B3_c10.tif", "B3_c2.tif", "m/B2.tif", "m/B3.tif")

    table = find_pairs("{well}_{channel}.tif", "m/{well}.tif")

    assert row(table, "B2")["image"] == (Path("B2_c2.tif"), Path("B2_c10.tif"))
    assert row(table, "B2")["channels"] == ("c2", "c10")
    assert "channel" not in table
    assert not table["problem"].any()


def test_a_missing_channel_is_a_problem(folder):
    create_files("B2_dapi.tif", "B2_gfp.tif", "B3_dapi.tif", "m/B2.tif", "m/B3.tif")

    table = find_pairs("{well}_{channel}.tif", "m/{well}.tif")

    assert row(table, "B2")["problem"] == ""
    assert row(table, "B3")["problem"] == "The image has the channels dapi; other images also have gfp."


def test_two_files_for_one_image_are_a_problem(folder):
    create_files("w/A1.tif", "w/A1.tiff", "m/A1.tif")

    assert "2 files match, expected 1" in find_pairs("w/{well}.tif*", "m/{well}.tif")["problem"].item()


def test_two_masks_for_one_image_are_a_problem(folder):
    create_files("w/A1.tif", "m/A1_x.tif", "m/A1_y.tif")

    problem = find_pairs("w/{well}.tif", "m/{well}_*.tif")["problem"].item()

    assert problem == "2 masks match: m/A1_x.tif, m/A1_y.tif. Keep one."


def test_images_that_share_a_mask_are_a_problem_that_names_the_missing_placeholder(folder):
    create_files("w/A1_t1.tif", "w/A1_t2.tif", "w/A2_t1.tif", "m/A1.tif", "m/A2.tif")

    table = find_pairs("w/{well}_{time}.tif", "m/{well}.tif")

    assert row(table, "A2_t1")["problem"] == ""
    assert "2 images share this mask: they differ in {time}" in row(table, "A1_t1")["problem"]


def test_folders_can_be_placeholders(folder):
    create_files("P1/B2/raw.tif", "P2/B2/raw.tif", "seg/P1-B2.tif", "seg/P2-B2.tif")

    table = find_pairs("{plate}/{well}/raw.tif", "seg/{plate}-{well}.tif")

    assert table["name"].tolist() == ["P1_B2", "P2_B2"]
    assert not table["problem"].any()


def test_a_repeated_placeholder_matches_the_same_text(folder):
    create_files("P1/P1_B2.tif", "P1/P2_B2.tif", "seg/P1_B2.tif")

    assert find_pairs("{plate}/{plate}_{well}.tif", "seg/{plate}_{well}.tif")["name"].tolist() == ["P1_B2"]


def test_backslashes_separate_folders_too(folder):
    create_files("wells/A1.tif", "masks/A1.tif")

    assert find_pairs(r"wells\{well}.tif", r"masks\{well}.tif")["image"].tolist() == [Path("wells/A1.tif")]


def test_stars_pair_files_by_the_matched_text(folder):
    create_files("images/a.png", "images/b.png", "masks/b_mask.tif", "masks/a_mask.tif")

    table = find_pairs("images/*.png", "masks/*_mask.tif")

    assert list(table) == ["name", "image", "mask", "channels", "problem"]
    assert row(table, "b")["mask"] == Path("masks/b_mask.tif")


def test_two_plain_paths_are_one_pair_named_after_the_stem(folder):
    create_files("gfp.tif", "nuclei.png")

    table = find_pairs("gfp.tif", Path("nuclei.png"))

    assert table[["name", "image", "mask", "problem"]].to_numpy().tolist() == [
        ["gfp", Path("gfp.tif"), Path("nuclei.png"), ""]
    ]


def test_a_single_image_with_channels_is_named_after_the_fixed_part_of_the_pattern(folder):
    create_files("well_dapi.tif", "well_gfp.tif", "nuclei.tif")

    assert find_pairs("well_{channel}.tif", "nuclei.tif")["name"].tolist() == ["well"]


def test_datasets_inside_hdf5_files_and_zarr_folders_are_found(folder):
    create_files("A1.h5", "B1.zarr/labels/nuclei/zarr.json")

    assert find_pairs("{well}.h5/raw", "{well}.h5/seg")["mask"].tolist() == [Path("A1.h5/seg")]
    assert find_pairs("{well}.zarr", "{well}.zarr/labels/nuclei")["name"].tolist() == ["B1"]


def test_special_characters_in_names_are_matched_literally(folder):
    create_files("a+b [1]/x.tif", "m (2)/x.tif")

    assert find_pairs("a+b [1]/{well}.tif", "m (2)/{well}.tif")["problem"].tolist() == [""]


def test_two_stars_search_subfolders(folder):
    create_files("data/x/A1.tif", "data/A2.tif", "m/A1.tif", "m/A2.tif")

    assert find_pairs("data/**/{well}.tif", "m/{well}.tif")["problem"].tolist() == ["", ""]


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        ("none/{well}.tif", "m/{well}.tif", "No image matches 'none/{well}.tif'"),
        ("w/{well}.tif", "none/{well}.tif", "No mask matches"),
        ("w/{well}.tif", "w/{well}.tif", "match the same files"),
        ("w/{well}.tif", "m/{plate}.tif", "no placeholder in common"),
        ("w/{well}.tif", "m/A1.tif", "no placeholder in common"),
        ("w/{mask}.tif", "m/{mask}.tif", "{mask} is the name of a column"),
        ("w/{my well}.tif", "m/{well}.tif", r"{my well} in 'w/{my well}.tif' is not a placeholder"),
    ],
)
def test_invalid_patterns_are_refused(folder, images, masks, message):
    create_files("w/A1.tif", "m/A1.tif")
    with pytest.raises(InputError, match=message):
        find_pairs(images, masks)


names = st.text("abcXYZ019.+[]()-", min_size=1, max_size=6).filter(lambda text: not text.startswith("."))


@settings(deadline=None)
@given(plate=names, well=names)
def test_a_filled_pattern_is_parsed_back(plate, well):
    pattern = FilePattern("wells/{plate}_{well}.tif")

    match = pattern.match(Path(pattern.fill_placeholders({"plate": plate, "well": well})))

    assert match == {"plate": plate, "well": well}


@pytest.mark.parametrize("separator", ["", "_", "-", "."])
def test_images_are_in_natural_order(folder, separator):
    numbers = [1, 2, 9, 10, 11, 100, 101, 1000]
    create_files(
        *(f"w/A{separator}{number}.tif" for number in numbers), *(f"m/A{separator}{number}.tif" for number in numbers)
    )

    table = find_pairs("w/{well}.tif", "m/{well}.tif")

    assert table["name"].tolist() == [f"A{separator}{number}" for number in numbers]
