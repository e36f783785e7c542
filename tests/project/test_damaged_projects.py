"""Projects with corrupt blocks or missing images: only the affected objects fail."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr

from svetlana_jupyter.core.io import chunks as blocks
from svetlana_jupyter.core.io import sources as stored
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.learn import inference as predict
from svetlana_jupyter.project.project import Project
from tests.project.conftest import CLASSES, squares

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 20
CHUNK = 32  # pixels per side


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory) -> Path:
    """Folder of a project with three classifiers, forty squares in a Zarr with small chunks, and an intact image."""
    folder = tmp_path_factory.mktemp("damage")
    project = Project(folder / "cells.svetlana", classes=CLASSES, annotator="ann")
    for name, count in (("other", 8), ("large", 40)):
        for kind, array in zip(("image", "mask"), squares(count, seed=3)):
            zarr.create_array(folder / f"{name}_{kind}.zarr", data=array, chunks=(CHUNK, CHUNK))
        project.add(name, folder / f"{name}_image.zarr", folder / f"{name}_mask.zarr")
    project.annotate("other", [1, 3], "dim")
    project.annotate("other", [2, 4], "bright")
    patches = {"size": SIZE, "normalize": "minmax"}
    for architecture in ("forest", "small_cnn", "live"):
        quick = {"epochs": 1, "steps": 2, "width": 4, "depth": 2, "threads": 1, "folds": 2, "trees": 10}
        project.train(architecture=architecture, patches=patches, **quick)
    return folder


@pytest.fixture
def trained(trained_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Copy of the project for a single test, predicted in several parts."""
    monkeypatch.setattr(stored, "BLOCK_PIXELS", CHUNK**2)
    monkeypatch.setitem(blocks.MIN_BLOCK_SHAPE, 2, (48, 48))
    for kind in ("network", "forest", "live"):
        monkeypatch.setitem(predict.OBJECTS_PER_PART, (kind, 2), 8)
    shutil.copytree(trained_folder, tmp_path, dirs_exist_ok=True)
    return Project(tmp_path / "cells.svetlana", annotator="ann")


def corrupt(chunk: Path) -> bytes:
    before = chunk.read_bytes()
    chunk.write_bytes(b"\x00" * len(before))
    return before


def objects_touching_chunk(project: Project, row: int, column: int, reach: int) -> set[int]:
    """Return the objects whose bounding box, extended by `reach`, touches the chunk."""
    objects = project.objects("large")
    touching = set()
    for label, o in objects.iterrows():
        low, high = np.array([o.y0, o.x0]) - reach, np.array([o.y1, o.x1]) + reach
        if (low < CHUNK * np.array([row + 1, column + 1])).all() and (high > CHUNK * np.array([row, column])).all():
            touching.add(int(label))
    return touching


@pytest.mark.parametrize(
    ("run", "kind", "reach"), [("0002", "image", 4), ("0002", "mask", 4), ("0001", "mask", 5), ("0003", "mask", 5)]
)
def test_objects_in_a_corrupt_block_are_listed_and_the_others_are_predicted(trained, tmp_path, run, kind, reach):
    trained.runs.choose(run)
    trained.predict(["large"])
    before = trained.runs.current.read_predictions("large")
    trained.runs.current.predictions_file("large").unlink()
    shutil.rmtree(trained.path / "measurements", ignore_errors=True)
    trained.images._pairs.clear()
    chunk = tmp_path / f"large_{kind}.zarr" / "c" / "4" / "1"
    intact = corrupt(chunk)
    trained.predict()
    expected = objects_touching_chunk(trained, 4, 1, reach)
    failed = trained.failed()
    assert set(failed.index.get_level_values("object")) == expected
    assert 0 < len(expected) < 10
    assert set(failed.index.get_level_values("image")) == {"large"}
    assert failed["why"].str.contains(f"A part of .*large_{kind}.zarr cannot be read").all()
    assert f"{len(expected)} objects of large have no prediction" in trained.trouble
    table = trained.predictions(["large"]).droplevel("image")
    assert set(table.index[table["predicted"].isna()]) == expected
    done = before.drop(index=list(expected))
    np.testing.assert_allclose(trained.runs.current.read_predictions("large"), done, atol=1e-5)
    assert trained.predictions(["other"])["predicted"].notna().all()

    chunk.write_bytes(intact)
    trained.predict()
    assert trained.failed().empty
    assert trained.trouble == ""
    after = trained.runs.current.read_predictions("large")
    np.testing.assert_array_equal(after, before)
    folder = trained.runs.current.predictions_file("large").parent
    assert sorted(path.name for path in folder.iterdir()) == ["large.parquet", "other.parquet"]


def test_a_missing_image_is_reported_last_and_the_others_are_predicted(trained, tmp_path):
    (tmp_path / "other_image.zarr").rename(tmp_path / "away")
    with pytest.raises(
        InputError, match=r"1 of 2 images could not be predicted\. The others.*other_image\.zarr does not exist"
    ):
        trained.predict()
    assert trained.predictions(["large"])["predicted"].notna().all()
    assert trained.job is None
    with pytest.raises(InputError, match="The image could not be predicted"):
        trained.predict(["other"])
    (tmp_path / "away").rename(tmp_path / "other_image.zarr")
    trained.predict()
    assert trained.predictions()["predicted"].notna().all()


def test_an_image_deleted_during_prediction_keeps_the_finished_parts(trained, tmp_path):
    moved = False

    def move_image(change):
        nonlocal moved
        if not moved and list(trained.runs.current.path.glob("predictions/large.*.parts/*.parquet")):
            (tmp_path / "large_image.zarr").rename(tmp_path / "away")
            moved = True

    trained.observe(move_image, "job")
    with pytest.raises(InputError, match=r"large_image\.zarr was moved or deleted"):
        trained.predict()
    assert trained.predictions(["other"])["predicted"].notna().all()
    assert list(trained.runs.current.path.glob("predictions/large.*.parts/*.parquet"))
    (tmp_path / "away").rename(tmp_path / "large_image.zarr")
    trained.predict()
    assert trained.predictions()["predicted"].notna().all()


@pytest.mark.parametrize("run", ["0001", "0002"])
def test_objects_with_pixels_that_are_not_finite_are_listed_and_not_predicted(trained, run):
    image, mask = squares(8, seed=3)
    image = image.astype(np.float64)
    image[0, 0] = np.nan  # outside the objects
    for label, value in ((2, np.nan), (5, -np.inf), (7, 1e39)):  # the last is infinite as float32
        image[tuple(np.argwhere(mask == label)[17])] = value
    trained.runs.choose(run)
    trained.add("float", image, mask, axes="yx")
    trained.add("zeros", np.where(np.abs(image) < 1e39, image, 0), mask, axes="yx")
    trained.predict(["float", "zeros"])
    assert trained.failed().index.tolist() == [("float", label) for label in (2, 5, 7)]
    assert "3 objects of float have no prediction: they contain NaN or infinite pixels." in trained.trouble
    both = {name: trained.predictions([name]).droplevel("image") for name in ("float", "zeros")}
    assert set(both["float"].index[both["float"]["predicted"].isna()]) == {2, 5, 7}
    columns = trained.runs.current.read_predictions("zeros").columns
    expected = trained.runs.current.read_predictions("zeros").drop(index=[2, 5, 7])
    np.testing.assert_allclose(trained.runs.current.read_predictions("float")[columns], expected, atol=1e-5)
    counts = trained.counts(by="image").set_index("image").loc["float"]
    assert counts[["not_predicted", "total"]].drop_duplicates().values.tolist() == [[3, 5]]
    if run == "0002":
        assert trained.explain("float", 3).attrs["object"] == 3
        with pytest.raises(InputError, match="Object 5 of 'float' has no prediction: they contain NaN or infinite"):
            trained.explain("float", 5)
