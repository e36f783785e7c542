"""Training of users' own networks, and initial weights from runs and files.

An untrusted project file imports no module.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from svetlana_jupyter.errors import ClassifierError, InputError, ProjectError
from svetlana_jupyter.learn.classifier import load_classifier
from svetlana_jupyter.project.project import Project
from tests.learn.networks import Flat, Plain
from tests.project.conftest import reopen
from tests.project.test_whole_loop import QUICK, annotated

NET = "tests.learn.networks:Plain"
STILL = {"learning_rate": 1e-12, "epochs": 1, "steps": 1}


def tensors(project: Project, run: str, network: torch.nn.Module | None = None) -> dict[str, np.ndarray]:
    return dict(load_classifier(project.runs[run].path, network).tensors())


def set_in_file(project: Project, **values) -> None:
    """Edit training.json by hand."""
    settings = json.loads(project._folder.settings_file.read_text())
    project._folder.settings_file.write_text(json.dumps(settings | values))


def test_a_network_object_trains_predicts_explains_and_is_required_on_reopening(project):
    annotated(project)
    network = Plain(3, 2)
    run = project.train(**QUICK, network=network, predict=True)
    assert run.settings["architecture"] == "own"
    assert project.predictions()["class"].notna().all()
    project.predict(["P1_A1"])
    assert project.explain("P1_A1", 1)["cam"].notnull().all()
    reopened = reopen(project)
    with pytest.raises(ClassifierError, match=r"user-defined torch module of class .*networks:Plain\. Pass it"):
        reopened.predict()
    reopened.predict(network=Plain(3, 2))
    assert reopened.explain("P1_A1", 1)["cam"].notnull().all()


def test_the_next_training_without_a_network_object_uses_the_settings(project):
    annotated(project)
    project.train(**QUICK, network=Flat(3, 2))
    assert project.train(**QUICK).settings["architecture"] == "small_cnn"
    project.predict()


def test_a_background_job_trains_a_network_object(project):
    annotated(project)
    project.background.train(**QUICK, network=Plain(3, 2))
    project._jobs.wait(60)
    assert project.trouble == ""
    assert project.runs.current.settings["architecture"] == "own"


def test_a_module_path_in_the_call_is_imported_and_scored(project):
    annotated(project)
    run = project.train(**QUICK, architecture=NET)
    assert run.settings["architecture"] == NET
    project.predict()


def test_an_untrusted_project_imports_no_module(project, tmp_path, monkeypatch):
    annotated(project)
    set_in_file(project, architecture="strangers:Net")
    project.annotations.file.close()
    (tmp_path / "strangers.py").write_text("raise SystemExit('a stranger ran code')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="`import strangers` first"):
        Project(project.path, annotator="ann").train()
    assert "strangers" not in sys.modules


def test_an_imported_module_named_in_the_settings_is_trained(project):
    annotated(project)
    set_in_file(project, architecture=NET)
    assert project.train(epochs=1, steps=1).settings["architecture"] == NET


def test_a_run_can_start_from_an_earlier_run_with_a_note(project):
    annotated(project)
    project.train(**QUICK)
    run = project.train(**QUICK | STILL, seed=3, start_from="0001")
    assert run.settings["start_from"] == "0001"
    assert run.remarks == ["Started from 14 of 14 weights of 0001."]
    for name, values in tensors(project, "0001").items():
        if name.endswith(("weight", "bias")):
            np.testing.assert_allclose(tensors(project, "0002")[name], values, atol=1e-6)
    reopened = reopen(project)
    assert reopened.runs["0002"].remarks == run.remarks
    set_in_file(reopened, start_from="0002")
    assert reopened.train(**QUICK).remarks[0].endswith("weights of 0002.")


def test_the_score_of_a_run_started_from_an_earlier_run_has_a_caveat(project):
    annotated(project, count=10)
    project.train(**QUICK)
    assert "Training started" not in project.evaluate().text
    project.train(**QUICK, start_from="0001")
    assert (
        "Training started from run 0001, which may have seen these objects: the score may be too good."
        in project.evaluate().text
    )


def test_settings_accept_only_runs_and_calls_accept_any_weights(project, tmp_path):
    annotated(project)
    torch.manual_seed(0)
    network = Plain(3, 2)
    save_file(network.state_dict(), tmp_path / "mine.safetensors")
    place = str(tmp_path / "mine.safetensors")
    set_in_file(project, start_from=place)
    for call in ({}, {"settings": project.settings.changed(epochs=1)}):
        with pytest.raises(ProjectError, match=r"the file may only name runs.*none yet.*call project"):
            project.train(**call)
    run = project.train(**QUICK | STILL, start_from=place, network=Plain(3, 2))
    assert run.remarks[0] == f"Started from 4 of 4 weights of {place}."
    found = tensors(project, run.name, Plain(3, 2))
    np.testing.assert_allclose(found["body.out.weight"], network.out.weight.detach(), atol=1e-6)
    with pytest.raises(InputError, match="There is no"):
        project.train(**QUICK, start_from=str(tmp_path / "nowhere"))


def test_a_custom_network_is_compared_with_a_forest(project):
    annotated(project, count=10)
    project.train(**QUICK, network=Plain(3, 2))
    project.evaluate()
    assert project.runs.current.held_out("forest") is not None
    assert project.runs.current.held_out("network") is not None


def test_training_notes_are_shown(project):
    annotated(project)
    texts = []
    project.observe(lambda change: texts.append(project.job.text if project.job else ""), "job")
    run = project.train(**QUICK | {"epochs": 400}, patience=2, schedule="constant")
    (remark,) = run.remarks
    assert remark.startswith("No improvement for 2 epochs")
    assert remark in texts
