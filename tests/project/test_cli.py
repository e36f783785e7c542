"""`svetlana-jupyter predict`: exit codes, messages on stderr, and images that fail independently of each other."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pandas as pd
import pytest
import zarr

from svetlana_jupyter.cli import main
from svetlana_jupyter.project.project import Project
from tests.project.conftest import CLASSES, squares
from tests.project.test_resumed_prediction import QUICK

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("batch")
    project = Project(folder / "cells.svetlana", classes=CLASSES, annotator="ann")
    for name in ("one", "two"):
        for kind, array in zip(("image", "mask"), squares(8, seed=3)):
            zarr.create_array(folder / "data" / f"{name}_{kind}.zarr", data=array, chunks=(24, 24))
        project.add(name, folder / "data" / f"{name}_image.zarr", folder / "data" / f"{name}_mask.zarr")
    project.annotate("one", [1, 3], "dim")
    project.annotate("one", [2, 4], "bright")
    project.train(**QUICK)
    project.train(**QUICK, seed=5)
    return folder


@pytest.fixture
def folder(trained_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained_folder, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_the_command_predicts_exports_and_reports_to_stderr(folder: Path) -> None:
    out = folder / "results"
    command = [sys.executable, "-m", "svetlana_jupyter", "predict", folder / "cells.svetlana", "--out", out]
    ended = subprocess.run([*command, "--formats", "csv", "parquet"], capture_output=True, text=True)
    assert ended.returncode == 0
    assert ended.stdout == "", ended.stderr
    assert "Predicted 8 objects of one." in ended.stderr
    assert "100%" in ended.stderr
    assert f"files to {out}." in ended.stderr
    table = pd.read_csv(folder / "results" / "objects.csv")
    assert len(table) == 16
    assert table["predicted"].notna().all()
    assert (table["run"] == 2).all()
    assert (folder / "results" / "objects.parquet").exists()


def test_images_and_a_run_can_be_chosen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "results"
    assert main(["predict", str(folder / "cells.svetlana"), "two", "--out", str(out), "--run", "0001"]) == 0
    table = pd.read_csv(out / "objects.csv").set_index("image")
    assert table.loc["two", "predicted"].notna().all()
    assert table.loc["one", "predicted"].isna().all()
    assert (table.loc["two", "run"] == 1).all()
    assert Project(folder / "cells.svetlana").current_run == "0002"


def test_a_failed_image_is_reported_last_and_the_others_are_predicted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(folder / "data" / "one_image.zarr")
    arguments = ["predict", str(folder / "cells.svetlana"), "--out", str(folder / "results")]
    assert main(arguments) == 1
    message = capsys.readouterr().err
    assert (
        message.rstrip().splitlines()[-1].startswith("1 of 2 images could not be predicted. The others are finished.")
    )
    table = pd.read_csv(folder / "results" / "objects.csv")
    assert set(table["image"]) == {"two"}
    assert table["predicted"].notna().all()
    assert list(Project(folder / "cells.svetlana").images) == ["one", "two"]


def test_unreadable_objects_give_exit_code_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chunk = folder / "data" / "one_image.zarr" / "c" / "0" / "0"
    chunk.write_bytes(b"\x00" * chunk.stat().st_size)
    assert main(["predict", str(folder / "cells.svetlana"), "--out", str(folder / "results")]) == 1
    assert "objects of one have no prediction" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.svetlana", "--out", "results"], "is not a project folder"),
        (["cells.svetlana", "three", "--out", "results"], "no image 'three'"),
        (["cells.svetlana", "--out", "results", "--run", "0009"], "no run '0009'"),
        (["cells.svetlana", "--out", "results", "--formats", "word"], "Unknown export format 'word'"),
        (["cells.svetlana", "--out", "data"], "data"),
        (["cells.svetlana"], "--out"),
    ],
)
def test_invalid_arguments_are_refused_before_any_work(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    try:
        code = main(["predict", *arguments])
    except SystemExit as ended:  # argparse
        code = ended.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (folder / "results").exists()
    assert not list((folder / "cells.svetlana" / "runs").glob("*/predictions"))


def test_ctrl_c_prints_a_message(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Project, "predict", interrupt)
    assert main(["predict", str(folder / "cells.svetlana"), "--out", str(folder / "results")]) == 1
    assert "run the same command again" in capsys.readouterr().err
