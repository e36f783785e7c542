"""Measurements: every object is measured once, whatever needs them, and listed with its class in a table."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import tifffile

from svetlana_jupyter.core.features import compute as measuring
from svetlana_jupyter.project import project as projects
from svetlana_jupyter.project.features import DiskFeatureCache
from svetlana_jupyter.project.project import Project
from tests.project.conftest import squares
from tests.project.test_whole_loop import annotated

if TYPE_CHECKING:
    from pathlib import Path

FOREST = {"architecture": "forest", "trees": 10, "threads": 1}


@pytest.fixture
def measured_counts(monkeypatch) -> Counter:
    """Counter of the measurements of each group and object."""
    counts: Counter = Counter()
    measure_objects = measuring.measure_objects

    def counting(pair, objects, settings):
        for table in measure_objects(pair, objects, settings):
            counts.update((pair.name, label, group) for label in table.index for group in settings.groups)
            yield table

    monkeypatch.setattr(measuring, "measure_objects", counting)
    return counts


def test_the_table_has_one_row_per_object_with_class_and_measurements(project: Project) -> None:
    annotated(project)
    project.train(**FOREST)
    table = project.measure(["P1_A1", "P2_A1"])
    assert table.index.names == ["image", "object"]
    assert len(table) == 24
    pd.testing.assert_frame_equal(table[project.predictions().columns], project.predictions(["P1_A1", "P2_A1"]))
    image, mask = squares(seed=3)
    row = table.loc["P2_A1", 5]
    assert row["area"] == 144
    assert row["extent"] == 1
    assert row["gray_mean"] == pytest.approx(image[mask == 5].mean())
    assert np.isfinite(row["gray_ring_contrast"])
    assert row["position_x"] == row["x"]
    assert project.job is None


def test_lengths_are_in_micrometers_if_the_spacing_is_known(project: Project, wells: Path) -> None:
    image, mask = squares()
    project.add("scaled", image, mask, axes="yx", spacing=(0.5, 0.5))
    assert (project.measure(["scaled"], groups=["shape"])["area_um2"] == 36).all()
    both = project.measure(["scaled", "P1_A1"], groups=["shape"])
    assert both["area_um2"].isna().sum() == both["area"].isna().sum() == 12


def test_each_object_is_measured_once_for_all_steps(project: Project, measured_counts: Counter, wells: Path) -> None:
    annotated(project, 10)
    project.train(**FOREST)
    assert {label for _, label, _ in measured_counts} == set(range(1, 11))
    project.predict()
    project.annotate("P1_A2", 3, "bright")
    project.train(**FOREST, measurements={"groups": ["shape", "intensity", "orientation"]})
    project.measure()
    again = Project(wells / "cells.svetlana", annotator="bob")
    again.measure()
    again.train(**FOREST)
    assert len(measured_counts) == 36 * 6
    assert set(measured_counts.values()) == {1}


def test_the_reference_forest_of_a_network_uses_cached_measurements(project: Project, measured_counts: Counter) -> None:
    project.measure(["P1_A1"])
    measured_counts.clear()
    annotated(project, 10)
    project.train(epochs=1, width=4, depth=1, threads=1)
    assert not measured_counts


def test_a_forest_predicts_the_same_from_cache_and_from_pixels(project: Project, wells: Path) -> None:
    annotated(project)
    run = project.train(**FOREST)
    project.predict()
    predictions = project.predictions()
    for file in (wells / "cells.svetlana/measurements").rglob("*.parquet"):
        file.unlink()
    again = Project(wells / "cells.svetlana")
    again.predict(run=run.name)
    pd.testing.assert_frame_equal(again.predictions(), predictions)


def test_a_changed_mask_or_image_is_measured_again(project: Project, wells: Path, measured_counts: Counter) -> None:
    before = project.measure(["P1_A1"], groups=["shape", "intensity"])
    image, mask = squares(seed=1)
    mask[mask == 3] = 30
    mask[7, 7:9] = 0
    tifffile.imwrite(wells / "masks/new.tif", mask)
    project.replace_mask("P1_A1", wells / "masks/new.tif")
    after = project.measure(["P1_A1"], groups=["shape", "intensity"])
    assert after.loc[("P1_A1", 1), "area"] == before.loc[("P1_A1", 1), "area"] - 2
    assert ("P1_A1", 30) in after.index
    tifffile.imwrite(wells / "wells/P1_A1.tif", 255 - image)
    brightened = Project(wells / "cells.svetlana").measure(["P1_A1"], groups=["intensity"])
    np.testing.assert_allclose(brightened["gray_mean"], 255 - after["gray_mean"], rtol=1e-5)


def test_ctrl_c_keeps_finished_measurements(project: Project, monkeypatch, measured_counts: Counter) -> None:
    handle = project._jobs._handle

    def interrupted(event):
        handle(event)
        if getattr(event, "text", "") == "measuring P1_A2":
            raise KeyboardInterrupt

    monkeypatch.setattr(project._jobs, "_handle", interrupted)
    with pytest.raises(KeyboardInterrupt):
        project.measure()
    assert project.job is None
    monkeypatch.undo()
    assert len(project.pair("P1_A2").feature_cache.get_features("shape")) == 12
    project.measure()
    assert len(project.pair("P2_A1").feature_cache.get_features("shape")) == 12


def test_cached_measurements_need_no_job(project: Project, monkeypatch) -> None:
    project.measure(["P1_A1"])
    monkeypatch.setattr(projects, "measure_images", None)
    assert len(project.measure(["P1_A1"])) == 12


def test_a_read_only_project_measures_objects(project: Project, wells: Path, measured_counts: Counter) -> None:
    folder = wells / "cells.svetlana"
    project._folder.writable = False
    assert len(project.measure(["P1_A1"])) == 12
    assert not (folder / "measurements").exists()
    count = len(measured_counts)
    project.measure(["P1_A1"])
    assert len(measured_counts) == count
    assert set(measured_counts.values()) == {1}


def test_a_broken_cache_file_is_measured_again(project: Project, wells: Path) -> None:
    before = project.measure(["P1_A1"])
    for file in (wells / "cells.svetlana/measurements").rglob("*.parquet"):
        file.write_bytes(b"torn")
    pd.testing.assert_frame_equal(Project(wells / "cells.svetlana").measure(["P1_A1"]), before)


def test_the_cache_keeps_measurements_of_two_kernels(tmp_path: Path) -> None:
    (tmp_path / "project.json").write_text("{}")
    first, second = (DiskFeatureCache(tmp_path / "one", True, lambda: "same") for _ in range(2))
    rows = pd.DataFrame({"area": np.float32([1, 2, 3])}, pd.Index([5, 6, 7], name="object"))
    assert first.get_features("shape").empty
    assert second.get_features("shape").empty
    first.add_features("shape", rows.iloc[:2])
    second.add_features("shape", rows.iloc[1:])
    pd.testing.assert_frame_equal(DiskFeatureCache(tmp_path / "one", True, lambda: "same").get_features("shape"), rows)
    assert DiskFeatureCache(tmp_path / "one", True, lambda: "other").get_features("shape").empty


def test_measuring_works_on_a_full_disk(project: Project, monkeypatch) -> None:
    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    project.pair("P1_A1").feature_cache.add_features(
        "shape", pd.DataFrame({"area": [1.0]}, pd.Index([1], name="object"))
    )
    assert len(project.pair("P1_A1").feature_cache.get_features("shape")) == 1


def test_a_measurement_added_to_a_group_is_computed_for_cached_objects(project: Project, wells: Path) -> None:
    expected = project.measure(["P1_A1"], groups=["shape"])
    file = wells / "cells.svetlana/measurements/P1_A1/shape.parquet"
    pd.read_parquet(file).drop(columns="solidity").to_parquet(file)
    reopened = Project(wells / "cells.svetlana")
    pd.testing.assert_frame_equal(reopened.measure(["P1_A1"], groups=["shape"]), expected)
    assert "solidity" in pd.read_parquet(file)


def test_blob_and_oriented_measurements_are_made_on_request_and_train_a_forest(project: Project) -> None:
    annotated(project)
    assert not [name for name in project.measure(["P1_A1"]) if "blob" in name or "gabor" in name]
    table = project.measure(["P1_A1"], groups=["blob", "oriented"])
    measured = [name for name in table if "blob_detail_0.8_sd" in name or "gabor_0.3_90" in name]
    assert len(measured) == 2 * len(project.pair("P1_A1").channels)
    assert table[measured].notna().all().all()
    run = project.train(**FOREST, measurements={"groups": ["blob"]})
    project.predict(["P1_A1"])
    assert (project.predictions(["P1_A1"])["run"] == run.name).all()
