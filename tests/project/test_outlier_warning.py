"""Warning of a run whose augmentation destroys the difference between the classes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from svetlana_jupyter.core import allowed_cues
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.project import run_scoring
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.samples import stripes

SMALL = {"epochs": 15, "steps": 8, "depth": 2, "width": 8, "trees": 10, "folds": 2, "patches": {"sampling": 20}}
QUICK = {"preset": "default", **SMALL}


@pytest.fixture
def striped(tmp_path):
    """Annotated project whose classes differ in the direction of their stripes."""
    sample = stripes(0, size=360, count=60)
    project = Project(tmp_path / "stripes.svetlana", classes=sample.names)
    project.add("stripes", sample.image, sample.mask, axes="yx")
    for label, name in sample.class_names().items():
        project.annotate("stripes", label, name)
    return project


def test_free_rotation_of_stripes_warns_with_the_score_without_it(striped):
    striped.train(**QUICK, augmentation={"rotation": "free"})
    report, run = striped.evaluate(), striped.runs.current
    assert run.warning == report.warning != ""
    assert run.warning not in run.note
    assert "Augmentation destroys the classes: without it" in striped.evaluate().text
    assert "rotation" in striped.evaluate().text


def test_half_turns_of_stripes_give_no_warning(striped):
    striped.train(**QUICK, augmentation={"rotation": "half_turns"})
    assert "ugmentation" not in striped.evaluate().text


def test_a_forbidden_cue_gives_no_warning(striped):
    striped.train(**QUICK, may_use=["surroundings", "brightness", "size"], augmentation={"brightness": 0, "noise": 0})
    assert "ugmentation" not in striped.evaluate().text


def test_a_search_that_cannot_disable_rotation_warns_too(striped, monkeypatch):
    monkeypatch.setattr(allowed_cues, "CANDIDATE_PRESETS", ("default", "object"))
    striped.train(**SMALL, augmentation={"rotation": "free"})
    assert len(striped.runs.current.search_results()) == 2
    assert striped.runs.score(striped.runs.current).network is not None, "the score of the comparison"
    assert "Augmentation destroys the classes: without it" in striped.evaluate().warning


def test_a_preset_without_augmentation_is_not_trained_twice(striped, monkeypatch):
    monkeypatch.setattr(run_scoring, "validate", None)
    samples = striped._task(TrainingSettings(**QUICK), {}, 1).samples(TrainingSettings(**QUICK))
    truth = np.arange(len(samples)) % 2
    right = pd.DataFrame({"image": samples.images, "object": samples.objects, "truth": truth, "predicted": truth})
    wrong = right.assign(predicted=np.arange(len(samples)) // 2 % 2)
    warning = return_value_of(run_scoring.check_augmentation(samples, wrong, right))
    assert warning.startswith(f"Augmentation destroys the classes: without it {len(samples)} of {len(samples)}")
    assert return_value_of(run_scoring.check_augmentation(samples, right, wrong)) == ""


def return_value_of(generator):
    """Return the return value of a generator that yields nothing."""
    with pytest.raises(StopIteration) as over:
        next(generator)
    return over.value.value
