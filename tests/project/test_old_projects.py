"""Projects of version 0.1.0 open with all annotations, runs and predictions."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from svetlana_jupyter.core.annotations import FLAGS
from svetlana_jupyter.errors import InputError, ResultWarning
from svetlana_jupyter.learn.training import _NetworkTraining
from svetlana_jupyter.project.project import Project
from tests.project.conftest import reopen, squares

DATA = Path(__file__).with_name("data") / "project_0_1_0"
RENAMED = {"gesture": "edit", "recipe": "preset", "bad": "bad_segmentation"}


@pytest.fixture
def old(tmp_path: Path) -> Project:
    """Copy of the project folder, next to copies of its images."""
    shutil.copytree(DATA, tmp_path / "old")
    return Project(tmp_path / "old" / "cells", annotator="ann")


def read_expected(name: str, index: list[str] | None = None) -> pd.DataFrame:
    """Return a table as version 0.1.0 gave it, with the current column names."""
    table = pd.read_csv(DATA / f"expected_{name}.csv", keep_default_na=True).rename(columns=RENAMED)
    table = table.replace({"bad": "bad_segmentation"})
    return table.set_index(index) if index else table


def assert_same_csv(table: pd.DataFrame, before: pd.DataFrame) -> None:
    """Compare through CSV, the format in which the table of version 0.1.0 is stored."""
    text = table.reset_index().to_csv(index=False)
    reopened = pd.read_csv(io.StringIO(text))[list(before.reset_index().columns)]
    pd.testing.assert_frame_equal(reopened, before.reset_index(), check_dtype=False, rtol=1e-5)


def test_labels_of_all_annotators_and_masks_are_read(old: Project) -> None:
    assert_same_csv(old.labels(), read_expected("labels", ["image", "object"]))
    assert old.trouble == ""


def test_the_log_keeps_every_event(old: Project) -> None:
    before = read_expected("annotations")
    table = old.annotations.table()
    assert len(table) == len(before)
    assert list(table["action"]) == list(before["action"])
    assert list(table["edit"]) == list(before["edit"])


def test_undo_works_on_edits_of_the_old_log(old: Project) -> None:
    assert old.undo()
    assert not old.labels().reset_index().equals(read_expected("labels"))


def test_new_events_are_appended_with_the_old_header(old: Project) -> None:
    old.flag("P2_A1", 9, "bad_segmentation")
    reopened = reopen(old)
    assert reopened.annotations.label_of("P2_A1", 9).action == "bad_segmentation"
    assert reopened.annotations.table().shape[0] == len(read_expected("annotations")) + 1


def test_runs_and_their_search_results_are_read(old: Project) -> None:
    assert [run.name for run in old.runs] == ["0001", "0002", "0003"]
    assert old.current_run == "0003"
    assert_same_csv(old.runs["0003"].search_results(), read_expected("search", ["preset"]))
    assert old.runs["0003"].settings["preset"] == "default"
    assert old.settings.preset == "auto"


def test_old_and_new_gray_images_have_the_same_columns_of_measurements(old: Project) -> None:
    old.add("new", *squares())
    table = old.measure(["P1_A1", "new"])
    assert table["gray_mean"].notna().all()
    assert not [name for name in table if name.startswith("grey")]


def test_predictions_and_counts_are_the_same(old: Project) -> None:
    expected = read_expected("predictions", ["image", "object"])
    flags = expected["annotation"].where(
        expected["annotation"].isin(FLAGS)
    )  # in that version, a flag was an annotation
    expected["annotation"] = expected["annotation"].where(flags.isna())
    expected.insert(expected.columns.get_loc("annotation") + 1, "flag", flags)
    assert_same_csv(old.predictions(), expected)
    before = read_expected("counts").drop(columns=["low", "high"])
    assert_same_csv(old.counts(by="well"), before)  # without drawn labels, so the fractions are the same, too
    assert old.counts()["note"].str.contains("an interval needs 20 labels of objects drawn at random").all()


def test_an_old_run_still_predicts(old: Project) -> None:
    before = old.predictions(["P1_A1"])["probability"]
    for file in (old.path / "runs").glob("*/predictions/*"):
        file.unlink()
    reopened = Project(old.path, annotator="cleo")
    reopened.predict(["P1_A1"])
    pd.testing.assert_series_equal(reopened.predictions(["P1_A1"])["probability"], before, rtol=1e-4)


def test_a_search_result_of_version_0_1_0_is_reused(old: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_NetworkTraining, "_step", lambda *_: 0.5)  # the search is for these settings, which take long
    run = old.train()
    assert "0003" in run.choice


@pytest.mark.parametrize("stored", [["dna", "actin", "tubulin"], ["dna"]])
def test_an_image_that_had_fewer_channels_opens_with_a_warning_and_its_annotations(tmp_path: Path, stored) -> None:
    pixels, mask = squares(4)
    image = np.stack([pixels, pixels // 2, pixels // 3, 255 - pixels])
    for name, array in (("i.tif", image), ("m.tif", mask)):
        tifffile.imwrite(tmp_path / name, array, photometric="minisblack")
    project = Project(tmp_path / "cells.svetlana", classes=["a"], annotator="ann")
    project.add("i", tmp_path / "i.tif", tmp_path / "m.tif", axes="cyx")
    project.annotate("i", [1, 3], "a")
    project.annotations.file.close()
    document = json.loads((project.path / "project.json").read_text())
    document["images"]["i"]["channels"] = stored
    (project.path / "project.json").write_text(json.dumps(document))

    old = Project(project.path, annotator="ann")
    expected = [*stored, *("channel 2", "channel 3", "channel 4")[len(stored) - 1 :]]
    assert list(old.pair("i").channels) == expected
    np.testing.assert_array_equal(old.pair("i").image, image)
    assert old.labels().index.tolist() == [("i", 1), ("i", 3)]
    warning = f"It has 4 channels, but had {len(stored)} ({', '.join(stored)}) when it was added; the others are named "
    assert old.images.warning("i").startswith(f"{warning}{', '.join(expected[len(stored) :])}. ")
    with pytest.warns(ResultWarning, match="It has 4 channels"):
        old.objects("i")

    old.images.accept_warning("i")
    assert old.images.warning("i") == ""
    old.annotations.file.close()
    again = Project(project.path, annotator="ann")
    assert list(again.pair("i").channels) == expected
    assert again.images.warning("i") == ""
    tifffile.imwrite(tmp_path / "i.tif", image[:2], photometric="minisblack")  # fewer channels stay refused
    with pytest.raises(InputError, match="has 2 channels, but the given names are"):
        again.pair("i")
