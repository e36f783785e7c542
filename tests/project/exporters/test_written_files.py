"""Background export: consistent results despite annotations meanwhile, progress, and stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest

from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.exporters import FORMATS
from svetlana_jupyter.project.jobs import JobState
from tests.project.exporters.conftest import NAMES

if TYPE_CHECKING:
    from pathlib import Path

    from svetlana_jupyter.project.project import Project


def test_an_export_reports_progress_and_written_files(predicted: Project, tmp_path: Path) -> None:
    seen: list[tuple[float, str]] = []
    predicted.observe(lambda change: change["new"] and seen.append((change["new"].done, change["new"].text)), "job")
    predicted.background.export(tmp_path / "results", ["csv", "masks", "geojson"])
    predicted._jobs.wait(60)
    assert predicted.trouble == ""
    assert predicted.job is None
    parts = [done for done, _ in seen]
    assert parts == sorted(parts)
    assert parts[-1] == 1
    assert len(set(parts)) > 5
    assert "objects.csv is written" in [text for _, text in seen]
    written = predicted.last_export
    assert all(file.exists() for file in written.files)
    assert len(written.files) == 3 + 4 + 2
    assert predicted.status == written.text
    assert "and 5 more" in written.text


def test_all_files_use_the_results_at_the_start_of_the_export(predicted: Project, tmp_path: Path) -> None:
    before = predicted.predictions()
    files = predicted._export(tmp_path / "results", ["csv", "excel"]).files()
    next(files)
    predicted.annotate(NAMES[1], 1, "=bright <b>")
    last = list(files)[-1]
    annotations = pd.read_excel(last, sheet_name="objects")["annotation"]
    assert (
        annotations.notna().sum()
        == before["annotation"].notna().sum()
        == predicted.predictions()["annotation"].count() - 1
    )


def test_a_stop_keeps_only_complete_files(predicted: Project, tmp_path: Path) -> None:
    file_counts = []

    def stop() -> bool:
        file_counts.append(len(list((tmp_path / "results").glob("*.geojson"))))
        return file_counts[-1] == 1 and file_counts.count(1) > 3

    export = predicted._export(tmp_path / "results", ["geojson", "csv"])
    files = list(export.files(stop))
    assert export.stopped
    assert len(files) == 1
    assert {file.name for file in (tmp_path / "results").iterdir()} == {files[0].name, "export.json"}
    assert len(file_counts) > 4, "it was asked in the middle of the second file"


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_format_can_be_stopped_or_finishes_at_once(predicted: Project, tmp_path: Path, name: str) -> None:
    export = predicted._export(tmp_path / "results", [name])
    files = list(export.files(lambda: True))
    assert export.stopped == (name not in ("csv", "parquet", "anndata"))
    assert bool(files) != export.stopped
    assert (tmp_path / "results").exists() != export.stopped


def test_only_one_job_runs_at_a_time(predicted: Project, tmp_path: Path) -> None:
    predicted._jobs.state = JobState("export")
    with pytest.raises(ProjectError, match=r"An export is running\. Wait for it"):
        predicted.background.train()
    with pytest.raises(ProjectError, match=r"An export is running\. Wait for it"):
        predicted.background.export(tmp_path / "results")
