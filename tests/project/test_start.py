"""A network of one's own and weights of earlier runs through a project, which a stranger's file can't abuse."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from svetlana_jupyter.errors import ClassifierError, InputError, ProjectError
from svetlana_jupyter.learn.classifier import load_classifier
from svetlana_jupyter.project.project import Project
from tests.learn.networks import Flat, Plain
from tests.project.test_loop import QUICK, annotated

NET = "tests.learn.networks:Plain"
STILL = {"learning_rate": 1e-12, "epochs": 1, "steps": 1}


def tensors(project: Project, run: str, network: torch.nn.Module | None = None) -> dict[str, np.ndarray]:
    return dict(load_classifier(project.run(run).path, network).tensors())


def said_in_file(project: Project, **values) -> None:
    """Edit training.json by hand."""
    settings = json.loads(project._store.settings_file.read_text())
    project._store.settings_file.write_text(json.dumps(settings | values))


def test_a_network_given_as_an_object_trains_predicts_explains_and_is_asked_for_after_reopening(project):
    annotated(project)
    network = Plain(3, 2)
    run = project.train(**QUICK, network=network, predict=True)
    assert run.settings["architecture"] == "own"
    assert project.predictions()["class"].notna().all()
    project.predict(["P1_A1"])
    assert project.explain("P1_A1", 1)["cam"].notnull().all()
    project._labelling.book.close()
    again = Project(project.path, annotator="ann")
    with pytest.raises(
        ClassifierError, match=r"networks:Plain that was given as an object\. Give such an object again"
    ):
        again.predict()
    again.predict(network=Plain(3, 2))
    assert again.explain("P1_A1", 1)["cam"].notnull().all()


def test_the_next_training_without_it_is_the_settings_own_again(project):
    annotated(project)
    project.train(**QUICK, network=Flat(3, 2))
    assert project.train(**QUICK).settings["architecture"] == "small_cnn"
    project.predict()


def test_a_panel_trains_a_network_given_as_an_object_too(project):
    annotated(project)
    project.start_training(**QUICK, network=Plain(3, 2))
    project._jobs.wait(60)
    assert project.trouble == "" and project.run().settings["architecture"] == "own"


def test_a_path_that_the_call_names_is_imported_and_scored_with_the_same_architecture(project):
    annotated(project)
    run = project.train(**QUICK, architecture=NET)
    assert run.settings["architecture"] == NET
    project.predict()


def test_opening_and_training_a_strangers_project_imports_nothing_and_says_so(project, tmp_path):
    annotated(project)
    said_in_file(project, architecture="strangers:Net")
    project._labelling.book.close()
    (tmp_path / "strangers.py").write_text("raise SystemExit('a stranger ran code')\n")
    code = f"""
import sys
from svetlana_jupyter import Project, SvetlanaError
project = Project({str(project.path)!r}, annotator="ann")
try:
    project.train()
except SvetlanaError as error:
    assert "`import strangers` first" in str(error), error
else:
    raise AssertionError
assert "strangers" not in sys.modules
"""
    path = ":".join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": path}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_what_the_file_names_is_trained_once_the_session_has_imported_it(project):
    annotated(project)
    said_in_file(project, architecture=NET)
    assert project.train(epochs=1, steps=1).settings["architecture"] == NET


def test_a_run_begins_with_an_earlier_one_by_its_name_and_says_so(project):
    annotated(project)
    project.train(**QUICK)
    run = project.train(**QUICK | STILL, seed=3, start_from="0001")
    assert run.settings["start_from"] == "0001" and run.remarks == ["Began with 14 of 14 weights of 0001."]
    for name, values in tensors(project, "0001").items():
        if name.endswith(("weight", "bias")):
            np.testing.assert_allclose(tensors(project, "0002")[name], values, atol=1e-6)
    project._labelling.book.close()
    again = Project(project.path, annotator="ann")
    assert again.run("0002").remarks == run.remarks
    said_in_file(again, start_from="0002")
    assert again.train(**QUICK).remarks[0].endswith("weights of 0002.")


def test_the_score_of_a_run_that_began_with_an_earlier_one_is_not_taken_for_granted(project):
    annotated(project, count=10)
    project.train(**QUICK)
    assert "began with run" not in project.run().note
    project.train(**QUICK, start_from="0001")
    assert "It began with run 0001, which may know some of them: the score may be too good." in project.run().note


def test_the_file_may_name_runs_alone_but_a_call_any_weights(project, tmp_path):
    annotated(project)
    torch.manual_seed(0)
    network = Plain(3, 2)
    save_file(network.state_dict(), tmp_path / "mine.safetensors")
    place = str(tmp_path / "mine.safetensors")
    said_in_file(project, start_from=place)
    for call in ({}, {"settings": project.settings.changed(epochs=1)}):
        with pytest.raises(ProjectError, match=r"a file may only name runs.*none yet.*give it to the call"):
            project.train(**call)
    run = project.train(**QUICK | STILL, start_from=place, network=Plain(3, 2))
    assert run.remarks[0] == f"Began with 4 of 4 weights of {place}."
    found = tensors(project, run.name, Plain(3, 2))
    np.testing.assert_allclose(found["body.out.weight"], network.out.weight.detach(), atol=1e-6)
    with pytest.raises(InputError, match="there is no"):
        project.train(**QUICK, start_from=str(tmp_path / "nowhere"))


def test_a_forest_stands_beside_a_network_of_ones_own(project):
    annotated(project, count=10)
    project.train(**QUICK, network=Plain(3, 2))
    assert project.run().held_out("forest") is not None and project.run().held_out("network") is not None


def test_what_training_had_to_say_is_shown(project):
    annotated(project)
    texts = []
    project.observe(lambda change: texts.append(project.job.text if project.job else ""), "job")
    run = project.train(**QUICK | {"epochs": 400}, patience=2, schedule="constant")
    (remark,) = run.remarks
    assert remark.startswith("Nothing improved for 2 epochs") and remark in texts
