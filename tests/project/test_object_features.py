"""Standardized features of all objects: values, cache, interruptions."""

from __future__ import annotations

import json
import sys
import zipfile
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from svetlana_jupyter.core.features import fitted_sources
from svetlana_jupyter.core.features.catalog import columns
from svetlana_jupyter.core.features.feature_sources import MeasurementSource
from svetlana_jupyter.core.features.fitted_sources import FittedSource
from svetlana_jupyter.errors import ClassifierError, InputError
from svetlana_jupyter.project import object_features
from svetlana_jupyter.project.feature_rows import IMPOSSIBLE, MISSING
from svetlana_jupyter.project.project import Project
from tests.project.conftest import reopen, squares

if TYPE_CHECKING:
    from pathlib import Path

    from svetlana_jupyter.project.feature_matrix import ImageFeatures

WIDTHS = count(1)


def never() -> bool:
    return False


def compute(project: Project, parts: int | None = None) -> None:
    """Compute features, and stop after a number of parts with new objects."""
    done = 0
    for event in project.features.compute(never):
        done += event.unit == "objects"
        if done == parts:
            return


def first_image(project: Project) -> ImageFeatures:
    return project.features.matrix().images["P1_A1"]


def values(project: Project) -> np.ndarray:
    """Return the features of the first image."""
    return first_image(project).read(slice(None))


def test_measurements_are_standardized_over_the_sample_and_weighted(project):
    compute(project)
    matrix = project.features.matrix()
    settings = project.settings.measurements
    keys = [column.key for column in columns(2, 1, settings.groups)]
    tables = [next(iter_measured(project, name, settings))[keys] for name in project.images]
    values = np.concatenate([table.to_numpy(float) for table in tables])
    used = values.std(axis=0) > 1e-9 * (1 + np.abs(values).max(axis=0))
    expected = np.zeros_like(values)
    expected[:, used] = ((values - values.mean(axis=0)) / np.where(used, values.std(axis=0), 1))[:, used]
    expected = expected.clip(-5, 5) / np.sqrt(3 * used.sum())  # three blocks
    found = np.concatenate([image.read(slice(None)) for image in matrix.images.values()])
    np.testing.assert_allclose(found[:, : len(keys)], expected, atol=2e-3)
    assert matrix.blocks["measurements"] == slice(0, len(keys))
    assert (found[:, : len(keys)] ** 2).sum(axis=1).mean() == pytest.approx(1 / len(matrix.blocks), abs=0.01)


def iter_measured(project, name, settings):
    from svetlana_jupyter.core.features.compute import measure_objects

    return measure_objects(project.pair(name), project.objects(name), settings)


def test_products_with_weights_equal_those_of_the_features(project):
    compute(project)
    matrix = project.features.matrix()
    weights = np.random.default_rng(0).normal(size=(matrix.width, 2)).astype(np.float32)
    for image in matrix.images.values():
        np.testing.assert_allclose(image.project(weights, slice(2, 9)), image.read(slice(2, 9)) @ weights, atol=1e-5)


@pytest.fixture
def small_sample(monkeypatch):
    """Let the sources learn from 6 of 36 objects, whose features are known from then on."""
    monkeypatch.setattr(fitted_sources, "SAMPLE_OBJECTS", 6)


def test_the_features_of_the_sample_are_those_of_any_other_object(project, monkeypatch):
    compute(project)
    monkeypatch.setattr(object_features, "PART_OBJECTS", 5)
    features = first_image(project)
    stored = [part.rows[:].copy() for part in features.parts]
    for part in features.parts:
        part.rows[:], part.state[:] = 0, MISSING
    compute(project)
    for part, expected in zip(first_image(project).parts, stored):
        np.testing.assert_array_equal(part.rows[:], expected)
        assert expected.any()


def test_a_stop_interrupts_the_sample(project):
    asked: list[int] = []
    list(project.features.compute(lambda: len(asked) > 4 or asked.append(1)))
    assert project.features.matrix().images == {}
    compute(project)
    assert all(image.is_present.all() for image in project.features.matrix().images.values())


@pytest.mark.usefixtures("small_sample")
def test_an_interrupted_computation_continues_after_the_project_is_reopened(project, monkeypatch):
    monkeypatch.setattr(object_features, "PART_OBJECTS", 5)
    compute(project, parts=1)
    present = {name: int(image.is_present.sum()) for name, image in project.features.matrix().images.items()}
    assert 0 < sum(present.values()) < 36
    project.annotations.file.close()
    asked: list[int] = []
    original = MeasurementSource.compute

    def counting(self, pair, objects, fitted):
        asked.append(len(objects))
        return original(self, pair, objects, fitted)

    monkeypatch.setattr(MeasurementSource, "compute", counting)
    reopened = Project(project.path, annotator="ann")
    compute(reopened)
    assert sum(asked) == 36 - sum(present.values())
    assert all(image.is_present.all() for image in reopened.features.matrix().images.values())


@pytest.mark.usefixtures("small_sample")
def test_urgent_objects_are_computed_first_in_parts(project, monkeypatch):
    monkeypatch.setattr(object_features, "PART_OBJECTS", 3)
    compute(project, parts=1)
    features = project.features.matrix().images["P2_A1"]
    known = set(features.labels[features.is_present])
    missing = [label for label in features.labels if label not in known]
    next(e for e in project.features.compute(never, lambda: {"P2_A1": missing[::-1]}) if e.unit == "objects")
    features = project.features.matrix().images["P2_A1"]
    assert set(features.labels[features.is_present]) - known == set(missing[-3:])


def test_changed_pixels_are_computed_again(project, wells: Path):
    compute(project)
    before = values(project)
    file = wells / "wells/P1_A1.tif"
    tifffile.imwrite(file, 255 - tifffile.imread(file))
    assert not first_image(project).is_present.any()
    compute(project)
    features = first_image(project)
    assert features.is_present.all()
    assert np.abs(features.read(slice(None)) - before).max() > 0.01
    assert len(list((project.path / "features/P1_A1").glob("measurements-*.rows"))) == 1


@pytest.mark.parametrize("damage", [b"", b"{", b'{"version": 1}', b"[]"])
def test_damaged_files_are_computed_again(project, damage):
    compute(project)
    expected = values(project)
    next((project.path / "features/P1_A1").glob("measurements-*.rows")).write_bytes(damage)
    (project.path / "features/measurements.json").write_bytes(damage)
    reopened = reopen(project)
    compute(reopened)
    np.testing.assert_array_equal(values(reopened), expected)


@pytest.mark.parametrize("source", ["measurements", "patches"])
def test_damaged_rows_are_reported_and_computed_again(project, source):
    """Rows of zeros are missing; bits that changed, and rows that were exchanged, are damaged."""
    compute(project)
    expected = values(project)
    file = next((project.path / "features/P1_A1").glob(f"{source}-*.rows"))
    rows = np.frombuffer(bytearray(file.read_bytes()), np.uint8).reshape(12, -1)
    rows[2, 5] ^= 1
    rows[[4, 5]] = rows[[5, 4]]
    rows[7], rows[8, -8:] = 0, 0
    rows[9, -1] ^= 128
    file.write_bytes(rows.tobytes())
    reopened = reopen(project)
    image = first_image(reopened)
    assert np.flatnonzero(image.is_waiting).tolist() == [2, 4, 5, 7, 8, 9]
    assert reopened.trouble == (
        f"Features ({source}) of 5 objects of 'P1_A1' were damaged on disk. They are computed again with the next "
        "update."
    )
    compute(reopened)
    np.testing.assert_array_equal(values(reopened), expected)
    again = Project(reopened.path, annotator="bob")
    assert first_image(again).is_present.all()
    assert again.trouble == ""


def test_rows_of_another_image_are_computed_again(project):
    compute(project)
    expected = values(project)
    first, second = (next((project.path / "features" / name).glob("patches-*.rows")) for name in ("P1_A1", "P1_A2"))
    first.write_bytes(second.read_bytes())
    reopened = reopen(project)
    assert first_image(reopened).is_waiting.all()
    compute(reopened)
    np.testing.assert_array_equal(values(reopened), expected)


def test_the_state_of_a_row_is_a_part_of_its_checksum(project):
    project.features.add("none", lambda patches: np.full((len(patches), 2), np.nan), size=16)
    compute(project)
    folder = project.path / "features/P1_A1"
    file = next(folder.glob("encoder none-*.rows"))
    words = np.frombuffer(file.read_bytes(), np.uint64).reshape(12, 2).copy()
    assert words[:, 0].tolist() == [0] * 12
    key = int(file.stem.rpartition("-")[2], 16) // 4
    assert words[:, 1].tolist() == [4 * (key ^ row) + IMPOSSIBLE for row in range(12)]


def test_files_of_an_encoder_with_a_longer_name_stay(project):
    for name in ("a", "a-b"):
        project.features.add(name, corners, size=16)
    compute(project)
    project.features.add("a", lambda patches: corners(patches) * 2, size=16)
    compute(project)
    names = [file.name.rpartition("-")[0] for file in (project.path / "features/P1_A1").glob("encoder*")]
    assert sorted(names) == ["encoder a", "encoder a-b"]


def test_learned_numbers_of_other_features_are_refused_with_a_sentence(project):
    compute(project)
    file = project.path / "features/measurements.json"
    document = json.loads(file.read_text())
    document |= {name: document[name][1:] for name in ("center", "scale")}
    document["sizes"] = [document["sizes"][0] - 1]
    center, scale = (np.array(document[name]) for name in ("center", "scale"))
    learned = {name: np.array(each) for name, each in document["learned"].items()}
    source = project.features.sources()[0]
    document["digest"] = FittedSource(source, learned, center, scale, tuple(document["sizes"])).digest
    file.write_text(json.dumps(document))
    reopened = reopen(project)
    compute(reopened)
    assert "project.features.refresh()" in reopened.features.problems["P1_A1"]
    reopened.features.refresh()
    compute(reopened)
    assert first_image(reopened).is_present.all()


def test_a_learned_number_that_changed_on_disk_is_learned_again(project):
    compute(project)
    expected = values(project)
    file = project.path / "features/measurements.json"
    document = json.loads(file.read_text())
    document["scale"][0] *= 2
    file.write_text(json.dumps(document))
    reopened = reopen(project)
    compute(reopened)
    np.testing.assert_array_equal(values(reopened), expected)


@pytest.mark.parametrize("damage", [b"", b'{"version": "1"}'])
def test_a_damaged_file_of_an_encoder_is_named_and_adds_no_features(project, damage):
    (project.path / "features").mkdir()
    (project.path / "features/encoder x.json").write_bytes(damage)
    compute(project)
    assert list(project.features.matrix().blocks) == ["measurements", "blob", "oriented"]
    assert first_image(project).is_present.all()
    assert project.trouble.startswith("The cache of encoder x is damaged, so it is left out. Call project.features.add")


def test_links_are_neither_followed_nor_replaced(project, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (project.path / "features").symlink_to(outside)
    compute(project)
    assert all(image.is_present.all() for image in project.features.matrix().images.values())  # in memory
    assert list(outside.iterdir()) == []


def test_an_image_with_more_channels_has_no_features_and_a_reason(project):
    image, mask = squares()
    project.add("two", np.stack([image, image]), mask, axes="cyx")
    compute(project)
    assert "two" not in project.features.matrix().images
    assert "channels" in project.features.problems["two"]


def test_an_image_that_is_gone_has_a_reason_and_others_are_computed(project, wells: Path):
    (wells / "wells/P1_A2.tif").unlink()
    compute(project)
    assert "P1_A2.tif" in project.features.problems["P1_A2"]
    assert set(project.features.matrix().images) == {"P1_A1", "P2_A1"}


def test_an_image_that_vanishes_does_not_keep_new_ones_from_being_computed(project, wells: Path):
    compute(project)
    (wells / "wells/P1_A2.tif").unlink()
    project.add("new", *squares(seed=9), axes="yx")
    for _ in project.features.compute(never, lambda: {"P1_A2": [1]}):
        pass
    assert "P1_A2.tif" in project.features.problems["P1_A2"]
    matrix = project.features.matrix()
    assert set(matrix.images) == {"P1_A1", "P2_A1", "new"}
    assert matrix.images["new"].is_present.all()


def test_what_was_learned_is_kept_until_refresh(project):
    compute(project)
    learned = (project.path / "features/measurements.json").read_text()
    project.add("other", *squares(seed=9), axes="yx")
    compute(project)
    assert (project.path / "features/measurements.json").read_text() == learned
    project.features.refresh()
    compute(project)
    assert (project.path / "features/measurements.json").read_text() != learned


def test_allowed_cues_limit_the_features(project):
    project.settings = project.settings.changed(may_use=["orientation", "size", "surroundings"])
    compute(project)
    width = project.features.matrix().blocks["measurements"].stop
    everything = len(columns(2, 1, project.settings.measurements.groups))
    assert 0 < width < everything


def test_features_are_left_out_of_a_zip_file(project, tmp_path: Path):
    compute(project)
    with zipfile.ZipFile(project.save_zip(tmp_path / "cells.zip")) as archive:
        assert not [name for name in archive.namelist() if "/features/" in name]


def corners(patches: np.ndarray) -> np.ndarray:
    """Return the mean of each quarter of a patch."""
    half = patches.shape[-1] // 2
    quarters = [patches[..., y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
    return np.stack([quarter.mean(axis=(1, 2, 3)) for quarter in quarters], axis=1)


def test_an_encoder_adds_a_block_of_features(project):
    project.features.add("quarters", corners, size=16)
    compute(project)
    matrix = project.features.matrix()
    assert matrix.blocks["encoder quarters"].stop - matrix.blocks["encoder quarters"].start == 4
    values = np.concatenate([image.read(slice(None)) for image in matrix.images.values()])
    assert (values[:, matrix.blocks["encoder quarters"]] ** 2).sum(axis=1).mean() == pytest.approx(
        1 / len(matrix.blocks), abs=0.01
    )


def test_another_encoder_of_the_same_code_is_computed_anew(project):
    def times(weights):
        return lambda patches: corners(patches) * weights

    project.features.add("quarters", times(1), size=16)
    compute(project)
    before = first_image(project).parts[1].rows.copy()
    project.features.add("quarters", times(np.array([1, -1, 1, -1])), size=16)
    compute(project)
    assert (first_image(project).parts[1].rows != before).any()


def test_a_torch_module_is_an_encoder(project):
    torch = pytest.importorskip("torch")
    project.features.add("pool", torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten()), size=16)
    compute(project)
    assert "encoder pool" in project.features.matrix().blocks


def test_cached_features_of_an_encoder_serve_where_it_is_missing(project):
    project.features.add("quarters", corners, size=16)
    compute(project)
    expected = values(project)
    reopened = reopen(project)
    reopened.add("other", *squares(seed=9), axes="yx")
    compute(reopened)
    matrix = reopened.features.matrix()
    np.testing.assert_array_equal(matrix.images["P1_A1"].read(slice(None)), expected)
    assert not matrix.images["other"].is_present.any()
    assert "project.features.add" in reopened.features.problems["encoder quarters"]
    reopened.features.remove("quarters")
    compute(reopened)
    assert reopened.features.matrix().images["other"].is_present.all()


def test_an_encoder_is_left_out_where_orientation_is_not_allowed(project):
    project.settings = project.settings.changed(may_use=["brightness", "size", "surroundings"])
    project.features.add("quarters", corners, size=16)
    compute(project)
    assert "encoder quarters" not in project.features.matrix().blocks


def test_an_encoder_sees_no_brightness_where_it_is_not_allowed(project):
    project.settings = project.settings.changed(may_use=["orientation", "size", "surroundings"])
    seen = []
    project.features.add("mean", lambda patches: seen.append(patches) or np.zeros((len(patches), 1)), size=16)
    compute(project)
    center = np.concatenate(seen)[:, 0, 6:10, 6:10].mean(axis=(1, 2))
    assert abs(center).max() < 1  # the objects' own pixels have mean 0 and deviation 1


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (lambda patches: patches, "one row of features per patch"),
        (lambda patches: patches[:, 0, 0, :0], "one row of features per patch"),
        (lambda patches: np.ones((len(patches), next(WIDTHS))), "same number of features"),
        (lambda patches: 1 / 0, "division by zero"),
        (lambda patches: sys.exit(3), "SystemExit: 3"),
    ],
)
def test_a_failing_encoder_is_reported(project, encoder, message):
    project.features.add("broken", encoder, size=16)
    with pytest.raises(ClassifierError, match=message):
        compute(project)


def test_the_user_interrupts_an_encoder(project):
    def interrupted(patches: np.ndarray) -> np.ndarray:
        raise KeyboardInterrupt

    project.features.add("slow", interrupted, size=16)
    with pytest.raises(KeyboardInterrupt):
        compute(project)


def test_an_encoder_that_cannot_be_used_is_refused(project):
    for name, encoder, size in (("", corners, 16), ("a", "dino.pt", 16), ("a", corners, 2)):
        with pytest.raises(InputError):
            project.features.add(name, encoder, size)
    with pytest.raises(InputError, match="no encoder 'a'"):
        project.features.remove("a")
