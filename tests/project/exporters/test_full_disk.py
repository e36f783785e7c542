"""Full disk during an export, for every format: a clear message and no partial files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from svetlana_jupyter.project.exporters import FORMATS

if TYPE_CHECKING:
    from pathlib import Path

# No file may grow beyond 100 bytes: the system, not a mock, cuts the first write of each format short.
EXPORTS = """
import resource, sys
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.exporters import FORMATS
from svetlana_jupyter.project.project import Project
project = Project(sys.argv[1], annotator="ann")
project.predictions(), project.measure()
import anndata, openpyxl, pyarrow.parquet
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
for name in FORMATS:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        project.export(f"{sys.argv[2]}/{name}", [name])
        outcome = "written"
    except ProjectError as error:
        outcome = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    print(name, outcome, sep=": ", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a system that cannot limit the size of files")
def test_no_format_leaves_partial_files(predicted_folder: Path, tmp_path: Path) -> None:
    project = shutil.copytree(predicted_folder, tmp_path / "data") / "cells.svetlana"
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", EXPORTS, str(project), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=True)
    outcomes = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert list(outcomes) == list(FORMATS)
    for name, sentence in outcomes.items():
        assert "could not be written (" in sentence
        assert "large" in sentence
        assert "Free some space" in sentence, name
    assert list((tmp_path / "out").iterdir()) == []
