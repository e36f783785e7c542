"""A panel and a script write the same log, except time, source and seconds, and train the same weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from svetlana_jupyter.project.project import Project
from svetlana_jupyter.widgets.annotation_panel import AnnotationPanel
from svetlana_jupyter.widgets.training_panel import TrainingPanel
from tests.widgets.conftest import squares

if TYPE_CHECKING:
    from pathlib import Path

QUICK = {"epochs": 3, "width": 4, "depth": 2, "threads": 1, "trees": 20}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def new_project(folder: Path) -> Project:
    project = Project(folder, classes=["bright", "dark"], annotator="ann")
    project.add("left", *squares(0))
    project.settings = project.settings.changed(preset="default", **QUICK)
    return project


def test_a_panel_and_a_script_write_the_same_log_and_train_the_same_weights(tmp_path: Path) -> None:
    by_hand, by_script = new_project(tmp_path / "a.svetlana"), new_project(tmp_path / "b.svetlana")
    panel = AnnotationPanel(by_hand)
    queue = by_script.queue("random")
    panel.handle_key("n", None)
    for step in range(8):
        shown = panel.shown
        candidate = queue.next()
        assert shown is not None
        assert candidate is not None
        assert shown == candidate.id
        key = "1" if shown.label % 2 else "2"
        panel.handle_key("a" if step == 3 else key, shown)
        if step == 3:
            by_script.flag(*candidate.id, "ambiguous")
        else:
            by_script.annotate(*candidate.id, by_script.classes.names[int(key) - 1])
    panel.command_bar.buttons["Undo"].click()
    by_script.undo()
    columns = ["who", "action", "edit", "image", "object", "class_id", "y", "x", "box"]
    mine, its = by_hand.annotations.table(), by_script.annotations.table()
    assert mine[columns].equals(its[columns])
    assert len(mine) == 9
    assert set(mine["source"][:8]) == {"random queue"}
    assert set(its["source"]) == {"script"}
    assert mine["seconds"][:8].notna().all()

    training = TrainingPanel(by_hand)
    training.train.click()
    by_hand._jobs.wait(120)
    by_script.train()
    assert by_hand.trouble == ""
    assert by_hand.current_run == by_script.current_run == "0001"
    weights = [(project.runs.current.path / "weights.safetensors").read_bytes() for project in (by_hand, by_script)]
    assert weights[0] == weights[1]
    assert by_hand.runs.current.annotations == by_script.runs.current.annotations
