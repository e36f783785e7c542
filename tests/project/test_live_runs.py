"""Runs of live classifiers: trained, kept, and predicted again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import tifffile

from svetlana_jupyter.core.features.feature_sources import PatchSource
from svetlana_jupyter.errors import ClassifierError, ProjectError
from svetlana_jupyter.project import live_storage
from tests.project.conftest import reopen, squares
from tests.project.test_live import label_some
from tests.project.test_object_features import corners

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project


def stored_probabilities(project: Project, run: str) -> np.ndarray:
    """Return the uncalibrated probabilities that a run has stored for all images."""
    tables = [project.runs[run].read_predictions(name) for name in project.images]
    return np.concatenate([table[["p_1", "p_2"]].to_numpy() for table in tables])


def live_probabilities(project: Project) -> np.ndarray:
    return np.concatenate([project.probabilities(name, "live")[["p_1", "p_2"]].to_numpy() for name in project.images])


@pytest.mark.parametrize("is_cached", [True, False])
def test_a_trained_live_classifier_predicts_as_the_live_run(project, is_cached, monkeypatch):
    label_some(project)
    project.live.update()
    run = project.train(preset="live")
    project.evaluate(run.name)  # which waits for the score
    assert (run.settings["preset"], run.settings["architecture"]) == ("live", "live")
    assert project.current_run == "live"  # which follows further labels
    assert f"run {run.name} is the live classifier for these labels alone" in project.status
    computed = []
    original = PatchSource.compute
    monkeypatch.setattr(PatchSource, "compute", lambda self, *args: computed.append(1) or original(self, *args))
    if not is_cached:
        monkeypatch.setattr(project.features, "cached", lambda sources: sources)
    project.predict(run=run.name, resume=False)
    assert bool(computed) != is_cached
    unlabeled = slice(24, None)  # the live run predicts labeled objects from the other labels
    expected = live_probabilities(project)
    np.testing.assert_allclose(stored_probabilities(project, run.name)[unlabeled], expected[unlabeled], atol=1e-6)
    assert abs(stored_probabilities(project, run.name) - expected).max() > 1e-3


def test_a_live_classifier_is_trained_where_no_features_are_cached(project):
    label_some(project)
    run = project.train(preset="live", predict=True)
    table = project.predictions()
    assert (table["predicted"] == np.where(table.index.get_level_values(1) % 2 == 0, "bright", "dim")).all()
    assert project.evaluate().network is not None
    assert run.held_out() is not None
    assert run.held_out("forest") is not None
    assert not (project.path / "features").exists()  # nothing was cached for the live run


def test_an_encoder_is_used_also_where_nothing_is_cached(project):
    project.features.add("quarters", corners, size=16)
    label_some(project)
    run = project.train(preset="live", predict=True)
    assert "encoder quarters" in (run.path / "classifier.json").read_text()
    assert project.predictions()["predicted"].notna().all()


def test_a_run_with_an_encoder_needs_it_to_predict_and_names_it(project):
    project.features.add("quarters", corners, size=16)
    label_some(project)
    project.live.update()
    run = project.train(preset="live")
    project.predict(["P1_A1"], run=run.name)
    reopened = reopen(project)
    with pytest.raises(ClassifierError, match="'encoder quarters'"):
        reopened.predict(["P2_A1"], run=run.name)
    reopened.features.add("quarters", corners, size=16)
    reopened.predict(["P2_A1"], run=run.name)
    np.testing.assert_array_equal(reopened.probabilities("P2_A1", run.name).index, range(1, 13))


def random_labels(project: Project, count: int = 24) -> None:
    """Label objects that a queue draws at random."""
    queue = project.queue("random")
    for _ in range(count):
        image, label, _ = queue.next()
        project.annotate(image, label, "bright" if label % 2 == 0 else "dim")


def test_kept_live_predictions_are_a_run_that_later_labels_do_not_change(large, tmp_path):
    random_labels(large)
    large.live.update()
    table, score, counts = large.predictions(), large.live_state.score, large.counts()
    run = large.live.keep()
    assert (run.name, large.current_run) == ("0001", "live")
    assert large.status == "Kept the live predictions as run 0001."
    large.annotate("more3", [1, 2, 3, 4], "bright")  # half of them wrong
    large.live.update()
    large.runs.choose("0001")
    columns = ["predicted", "probability", "p_dim", "p_bright"]
    pd.testing.assert_frame_equal(large.predictions()[columns], table[columns])
    report = large.evaluate()
    assert report.network.balanced_accuracy == score
    assert report.network.groups == large.runs["0001"].held_out()["group"].nunique()
    large.undo()
    pd.testing.assert_frame_equal(
        large.counts().drop(columns="note"), counts.drop(columns="note"), check_exact=False, atol=1e-6
    )
    large.export(tmp_path / "results")
    assert set(pd.read_csv(tmp_path / "results/objects.csv")["run"]) == {1}
    assert large.runs.compare().loc["0001", "preset"] == "live"
    assert sum(run.labels.values()) == len(run.training_labels()) == 24
    assert run.left_out is not None
    assert set(run.outlier_fractions(large.images.mask_numbers())["asked"]) == {12}


def test_a_kept_run_opens_again_and_predicts_new_images(project, monkeypatch):
    label_some(project)
    project.live.update()
    expected = live_probabilities(project)
    project.live.keep()
    reopened = reopen(project)
    np.testing.assert_array_equal(stored_probabilities(reopened, "0001"), expected)
    stored = {name: reopened.runs["0001"].predictions_file(name).stat().st_mtime_ns for name in reopened.images}
    reopened.predict(run="0001")
    assert stored == {name: reopened.runs["0001"].predictions_file(name).stat().st_mtime_ns for name in stored}
    reopened.predict(run="0001", resume=False)
    np.testing.assert_allclose(stored_probabilities(reopened, "0001")[24:], expected[24:], atol=1e-6)
    own = stored_probabilities(reopened, "0001")[:24].max(axis=1)  # no longer leave-one-out
    assert own.mean() > expected[:24].max(axis=1).mean()
    reopened.add("other", *squares(seed=9), axes="yx", groups={"plate": "P3", "well": "B1"})
    reopened.predict(["other"], run="0001")
    reopened.runs.choose("0001")
    table = reopened.predictions(["other"])
    assert (table["predicted"] == np.where(table.index.get_level_values(1) % 2 == 0, "bright", "dim")).all()


def test_a_kept_run_has_no_network_to_explain(project):
    label_some(project)
    project.live.update()
    project.runs.choose(project.live.keep().name)
    with pytest.raises(ProjectError, match="Only a network can be explained"):
        project.explain("P1_A1", 1)


def test_nothing_is_kept_without_current_live_predictions(project, wells):
    with pytest.raises(ProjectError, match=r"no live predictions to keep.*project\.live\.update"):
        project.live.keep()
    label_some(project)
    project.live.update()
    mask = tifffile.imread(wells / "masks/P2_A1.tif")
    tifffile.imwrite(wells / "masks/P2_A1.tif", np.where(mask > 6, 0, mask))
    project.replace_mask("P2_A1")
    with pytest.raises(ProjectError, match="'P2_A1' or its mask has changed since the live predictions"):
        project.live.keep()
    project.live.update()
    project.settings = project.settings.changed(may_use=["brightness", "size", "surroundings"])
    with pytest.raises(ProjectError, match="settings or features have changed"):
        project.live.keep()
    assert not project.runs


def test_predictions_of_a_merged_class_are_not_kept(project):
    project.classes.add("odd")
    label_some(project)
    project.annotate("P1_A1", [1, 3], "odd")
    project.live.update()
    project.classes.merge("odd", "dim")
    with pytest.raises(ProjectError, match="The classes have changed since"):
        project.live.keep()
    project.live.update()
    project.runs.choose(project.live.keep().name)
    assert project.counts()["count"].tolist() == [18, 18]


@pytest.mark.parametrize("is_waiting", [True, False])
def test_objects_without_a_live_prediction_are_predicted_later(project, is_waiting):
    label_some(project)
    project.live.update()
    matrix = project.live.result.data.matrix
    for part in matrix.images["P2_A1"].parts:
        part.state[:3] = 0 if is_waiting else 1  # otherwise the features came after the predictions
    data = project.live.result
    data.images["P2_A1"].probabilities[:3] = np.nan
    for image in data.images.values():
        image.__dict__.pop("table", None), image.__dict__.pop("predicted", None)
    run = project.live.keep()
    assert run.read_predictions("P2_A1").index.tolist() == list(range(4, 13))
    assert project.failed(run=run.name).empty
    project.predict(run=run.name)
    assert project.runs[run.name].read_predictions("P2_A1").index.tolist() == list(range(1, 13))


def test_a_full_disk_keeps_nothing_and_says_so(project, monkeypatch):
    label_some(project)
    project.live.update()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(live_storage, "write_parquet", full)
    with pytest.raises(ProjectError, match=r"could not be written .* Free disk space"):
        project.live.keep()
    assert not project.runs
    assert not list((project.path / "runs").glob("*"))
