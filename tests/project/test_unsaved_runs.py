"""Full disk at the end of a training and while arrays are stored: a sentence, and nothing is lost."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.project.storage import write_json

if TYPE_CHECKING:
    from pathlib import Path

# No file may grow beyond 100 bytes: the system, not a mock, cuts the first write of each action short.
ACTIONS = """
import os, resource, sys
import svetlana_jupyter.learn.training, svetlana_jupyter.learn.forest, zarr
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.project import Project
from tests.project.conftest import squares
project = Project(sys.argv[1], annotator="ann")
image, mask = squares(8, seed=9)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
def on_a_full_disk(name, act):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        act()
        outcome = "done"
    except ProjectError as error:
        outcome = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    print(name, outcome, sep=": ", flush=True)
on_a_full_disk("add", lambda: project.add("new", image, mask))
on_a_full_disk("replace", lambda: project.replace_mask("P1_A1", squares(12)[1][::-1].copy()))
print("folders", sorted(file.name for file in project.path.glob("*/*") if "new" in file.name), sep=": ")
on_a_full_disk("train", lambda: project.train(architecture="forest", trees=5, predict=True))
on_a_full_disk("save", project.runs.save)
print("runs", len(project.runs), sep=": ")
print("saved", project.runs.save().name, project.current_run, sep=": ")
on_a_full_disk("predict", project.predict)
project.predict()
print("predicted", project.predictions()["predicted"].notna().sum(), sep=": ")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a system that cannot limit the size of files")
def test_a_full_disk_is_reported_and_the_trained_run_is_saved_later(project: Project) -> None:
    project.annotate("P1_A1", [1, 3, 5], "dim")
    project.annotate("P1_A1", [2, 4, 6], "bright")
    project.annotations.file.close()
    command = [sys.executable, "-c", ACTIONS, str(project.path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=True)
    outcomes = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    for name in ("add", "replace"):
        assert "could not be written (" in outcomes[name]
        assert "so nothing was changed. Free disk space" in outcomes[name]
    assert outcomes["folders"] == "[]"
    for name in ("train", "save"):
        assert outcomes[name].startswith("The trained run could not be written to")
        assert "Free disk space, then call project.runs.save() to keep it" in outcomes[name]
    assert outcomes["runs"] == "0"
    assert outcomes["saved"] == "0001: 0001"
    assert "Free some space" in outcomes["predict"]
    assert outcomes["predicted"] == "36"
    assert [run.name for run in Project(project.path, annotator="ann").runs] == ["0001"]


def test_there_is_nothing_to_save_after_a_saved_training(project: Project) -> None:
    with pytest.raises(ProjectError, match="Every trained run is saved already"):
        project.runs.save()


def test_json_files_never_contain_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"history": [{"loss": math.nan, "score": math.inf}], "n": (1.5, -math.inf)})
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "history": [{"loss": None, "score": None}],
        "n": [1.5, None],
    }


def test_a_run_with_a_loss_that_is_no_number_is_read_again(project: Project) -> None:
    project.annotate("P1_A1", [1, 3], "dim")
    project.annotate("P1_A1", [2, 4], "bright")
    run = project.train(architecture="forest", trees=5)
    file = run.path / "run.json"
    document = json.loads(file.read_text("utf-8"))
    write_json(file, {**document, "history": [{"epoch": 1, "loss": math.nan, "score": None}]})
    (again,) = Project(project.path, annotator="ann").runs
    assert math.isnan(again.history[0]["loss"])
