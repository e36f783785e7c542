"""Complete workflow of a script in 2D and 3D: annotate, train, predict, correct, retrain, reopen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import ClassifierError, ProjectError, SettingsError
from svetlana_jupyter.project import project as project_module
from svetlana_jupyter.project.jobs import JobState, thread_count
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.project.run_scoring import NOT_SCORED
from svetlana_jupyter.project.runs import read_runs
from svetlana_jupyter.project.storage import file_name
from svetlana_jupyter.samples import bright_foci_3d
from tests.project.conftest import CLASSES, reopen, squares

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUICK = {"epochs": 2, "steps": 3, "width": 4, "depth": 2, "threads": 1, "trees": 10}


def truth(label: int) -> str:
    return CLASSES[1 - label % 2]


def annotated(project: Project, count: int = 8) -> Project:
    for label in range(1, count + 1):
        project.annotate("P1_A1", label, truth(label))
    return project


def weights(project: Project) -> bytes:
    return (project.runs.current.path / "weights.safetensors").read_bytes()


def test_the_complete_workflow_finds_the_bright_squares(project: Project) -> None:
    annotated(project)
    run = project.train(epochs=20, width=8, depth=2, threads=1)
    project.predict()
    table = project.predictions()
    assert len(table) == 36
    assert (table["run"] == run.name).all()
    assert (table["predicted"] == [truth(label) for label in table.index.get_level_values("object")]).mean() > 0.95
    np.testing.assert_allclose(table[["p_dim", "p_bright"]].sum(axis=1), 1, atol=1e-5)
    counts = project.counts(by=["plate", "well"])
    assert counts["count"].sum() == 36
    assert counts.loc[counts["plate"] == "P2", "total"].tolist() == [12, 12]


def test_the_class_map_is_lazy_and_contains_the_class_of_every_object(project: Project, wells: Path) -> None:
    annotated(project)
    project.train(**QUICK)
    project.predict(["P1_A2"])
    codes = project.class_map("P1_A2")
    mask = tifffile.imread(wells / "masks" / "P1_A2.tif")
    ids = project.predictions(["P1_A2"]).droplevel("image")["class"].map({"dim": 1, "bright": 2}).to_dict()
    assert isinstance(codes.data, da.Array)
    np.testing.assert_array_equal(codes, np.vectorize(lambda label: ids.get(label, 0))(mask))
    assert project.predictions(["P2_A1"])["class"].isna().all(), "that image was not predicted"


def test_a_correction_is_used_in_table_map_and_the_next_training(project: Project) -> None:
    annotated(project)
    project.train(**QUICK)
    project.predict()
    digest = project.runs.current.annotations
    wrong = "dim" if project.probabilities("P2_A1").loc[5, "predicted"] == 2 else "bright"
    project.annotate("P2_A1", 5, wrong, source="correction")
    assert project.predictions().loc[("P2_A1", 5), "class"] == wrong
    assert project.train(**QUICK).labels == {"dim": 4 + (wrong == "dim"), "bright": 4 + (wrong == "bright")}
    assert project.runs.current.annotations != digest


def test_reopening_restores_the_last_run_and_its_predictions(project: Project) -> None:
    annotated(project)
    project.train(**QUICK)
    project.predict()
    again = reopen(project)
    assert again.current_run == project.current_run == "0001"
    pd.testing.assert_frame_equal(again.predictions(), project.predictions())


def test_the_same_annotations_settings_and_seed_give_the_same_weights(project: Project) -> None:
    annotated(project)
    project.train(**QUICK)
    first = weights(project)
    project.train(**QUICK)
    assert weights(project) == first
    assert project.runs.current.name == "0002"
    project.train(**QUICK, seed=1)
    assert weights(project) != first


def test_training_in_a_thread_gives_the_same_weights(project: Project) -> None:
    annotated(project)
    project.train(**QUICK)
    first = weights(project)
    project.background.train(**QUICK)
    assert isinstance(project.job, JobState)
    project._jobs.wait(60)
    assert project.job is None
    assert project.trouble == ""
    assert project.current_run == "0002"
    assert weights(project) == first
    assert project.training_curve.epochs == (1, 2)
    assert len(project.runs.current.history) == 2


def test_training_can_be_followed_by_prediction(project: Project) -> None:
    annotated(project)
    project.train(**QUICK, predict=True)
    assert project.predictions()["predicted"].notna().all()


def test_a_chosen_run_stays_in_a_panel_until_the_next_one_has_predicted_its_images(project, monkeypatch) -> None:
    annotated(project)
    project.train(**QUICK)
    project.predict(["P1_A1"])
    shown: list[tuple[str, bool]] = []

    def look(change: dict[str, str]) -> None:
        shown.append((change["new"], bool(project.predictions(["P1_A1"])["predicted"].notna().all())))

    def train() -> None:
        project.background.train(**QUICK, seed=len(project.runs))
        project._jobs.wait(60)
        assert project.trouble == ""

    project.observe(look, "current_run")
    train()
    assert shown == [("0002", True)]
    assert project.runs.predicted_images(project.images) == ["P1_A1"]
    with monkeypatch.context() as stopped:
        stopped.setattr(project_module, "predict_images", lambda *_: iter((project.stop(),)))
        train()
    assert project.current_run == "0002"
    assert project.status.endswith("Choose run 0003 to see its predictions.")
    project.train(**QUICK, seed=9)
    assert shown[1:] == [("0004", False)], "a script predicts with the new run"
    train()
    assert shown[2:] == [("0005", False)], "there were no predictions to keep"


def test_a_run_that_the_user_chooses_during_a_prediction_stays(project, monkeypatch) -> None:
    for seed in range(2):
        annotated(project).train(**QUICK, seed=seed)
        project.predict(["P1_A1"])
    predict_images = project_module.predict_images

    def choose_and_predict(*arguments: Any) -> Iterator[object]:
        project.runs.choose("0001")
        return predict_images(*arguments)

    monkeypatch.setattr(project_module, "predict_images", choose_and_predict)
    project.background.train(**QUICK, seed=2)
    project._jobs.wait(60)
    assert project.runs.predicted_images(project.images) == ["P1_A1"]
    assert project.current_run == "0001"
    assert project.status.endswith("Choose run 0003 to see its predictions.")


@pytest.mark.parametrize("predict", [False, True])
def test_a_training_whose_prediction_fails_is_scored(project, wells, predict) -> None:
    annotated(project).train(**QUICK)
    project.predict()
    tifffile.imwrite(wells / "wells/P2_A1.tif", np.zeros((3, 72, 96), np.uint8), photometric="minisblack")
    again = reopen(project)
    again.background.train(**QUICK, predict=predict)
    again._jobs.wait(60)
    assert "'P2_A1' has 3" in again.trouble
    assert again.runs["0002"].note != NOT_SCORED
    assert again.current_run == "0001"
    assert again.status.endswith("Choose run 0002 to see its predictions.")


def test_a_run_can_be_used_before_it_is_scored(project: Project) -> None:
    for label in range(1, 13):
        project.annotate("P1_A1", label, truth(label))
    seen: list[tuple[bool, str]] = []

    def look(change: object) -> None:
        predicted = bool(project.predictions(["P2_A1"])["predicted"].notna().all())
        seen.append((predicted, project.evaluate().source))

    project.observe(look, "predictions_version")
    project.train(**QUICK, predict=True)
    assert seen[0] == (False, "being scored")
    assert seen[-1] == (True, "being scored")
    assert project.evaluate().source == "cross-validation"
    assert read_runs(project.path / "runs")["0001"] == project.runs.current, "what is on disk knows the score too"


def test_a_script_uses_all_cores_and_a_background_job_leaves_one_free(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert (thread_count("script"), thread_count("panel")) == (4, 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert (thread_count("script"), thread_count("panel")) == (2, 1)
    annotated(project)
    quick = {**QUICK, "threads": None}
    assert project.train(**quick).settings["threads"] == 2
    project.background.train(**quick)
    project._jobs.wait(60)
    assert project.runs["0002"].settings["threads"] == 1


def test_stop_keeps_the_best_checkpoint(project: Project) -> None:
    annotated(project)
    reached = threading.Event()
    project.observe(
        lambda change: reached.set() if change["new"] and len(change["new"].epochs) >= 2 else None, "training_curve"
    )
    project.background.train(epochs=100_000, width=8, depth=2, threads=1)
    assert reached.wait(60)
    project.stop()
    project._jobs.wait(30)
    assert project.current_run == "0001"
    assert 2 <= len(project.runs.current.history) < 100_000
    assert project.evaluate().source == "no estimate yet"
    assert "stopped" in project.evaluate().text
    project.predict(["P1_A1"])
    assert project.predictions(["P1_A1"])["predicted"].notna().all()


def test_only_one_job_runs_at_a_time(project: Project) -> None:
    annotated(project)
    project.background.train(epochs=100_000, width=8, depth=2, threads=1)
    with pytest.raises(ProjectError, match="A training is running"):
        project.train()
    project.annotate("P1_A1", 9, "dim")
    project.stop()
    project._jobs.wait(30)
    assert project.job is None


def test_an_error_in_the_thread_is_reported_and_the_project_stays_usable(project: Project, wells: Path) -> None:
    annotated(project)
    project.train(**QUICK)
    image = tifffile.imread(wells / "wells" / "P2_A1.tif")
    (wells / "wells" / "P2_A1.tif").unlink()
    project.background.predict()
    project._jobs.wait(60)
    assert "prediction" in project.trouble
    assert "P2_A1" in project.trouble
    assert project.job is None
    tifffile.imwrite(wells / "wells" / "P2_A1.tif", image)
    project.predict()
    assert project.predictions()["predicted"].notna().all()


def test_the_workflow_with_a_forest(project: Project) -> None:
    annotated(project)
    project.train(architecture="forest")
    project.predict()
    table = project.predictions()
    assert (table["predicted"] == [truth(label) for label in table.index.get_level_values("object")]).all()
    with pytest.raises(ProjectError, match="network"):
        project.explain("P1_A1", 1)


def test_earlier_runs_can_be_selected(project: Project) -> None:
    annotated(project)
    project.train(**QUICK)
    project.predict()
    before = project.predictions()
    project.train(**QUICK, seed=3)
    assert project.predictions()["predicted"].isna().all()
    project.runs.choose("0001")
    pd.testing.assert_frame_equal(project.predictions(), before)
    project.annotations.file.close()
    assert Project(project.path, annotator="ann").current_run == "0001"


def test_the_score_names_its_source_and_includes_the_forest(project: Project) -> None:
    for name in project.images:
        for label in range(1, 13):
            project.annotate(name, label, truth(label))
    project.train(**QUICK)
    report = project.evaluate()
    assert report.source == "cross-validation"
    assert report.network is not None
    assert report.forest is not None
    assert report.network.accuracy.n == report.forest.accuracy.n == 36
    assert report.forest.accuracy.value > 0.9
    held_out = project.runs.current.held_out()
    assert held_out is not None
    assert len(held_out.drop_duplicates(["image", "object"])) == 36
    assert f"A random forest on object measurements reaches {report.forest.accuracy.value:.1%}" in report.text
    project.train(architecture="forest")
    assert "random forest" not in project.evaluate().text, "a forest is not compared with itself"


def test_too_few_annotations_give_a_message_instead_of_a_score(project: Project) -> None:
    annotated(project, 2)
    project.train(**QUICK)
    report = project.evaluate()
    assert report.network is None
    assert report.source == "no estimate yet"
    assert "annotat" in report.text


@pytest.mark.parametrize(("count", "message"), [(0, "nothing is annotated yet"), (1, "only dim has some")])
def test_missing_annotations_are_reported_before_training(project: Project, count: int, message: str) -> None:
    annotated(project, count)
    assert message in project.readiness()
    with pytest.raises(ProjectError, match=message):
        project.train()
    assert not project.runs


def test_the_settings_file_can_be_edited_and_typos_are_named(project: Project) -> None:
    file = project.path / "training.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "epochs": 7}))
    assert project.settings.epochs == 7
    file.write_text(json.dumps({**settings, "epocs": 7}))
    with pytest.raises(SettingsError, match="Did you mean 'epochs'"):
        _ = project.settings


def test_an_image_with_other_channels_is_refused_before_any_prediction(project: Project) -> None:
    annotated(project)
    project.train(**QUICK)
    image, mask = squares()
    project.add("colour", np.stack([image] * 3), mask, axes="cyx")
    with pytest.raises(ClassifierError, match="channels"):
        project.predict()
    assert project.predictions()["predicted"].isna().all()


def test_ctrl_c_keeps_predicted_images(project: Project) -> None:
    annotated(project)
    project.train(**QUICK)

    def interrupt(change: object) -> None:
        raise KeyboardInterrupt

    project.observe(interrupt, "predictions_version")
    with pytest.raises(KeyboardInterrupt):
        project.predict()
    project.unobserve_all("predictions_version")
    assert project.job is None
    assert project.predictions()["predicted"].notna().groupby("image").all().tolist() == [True, False, False]


def test_results_are_written_to_a_separate_folder(project: Project, tmp_path: Path, wells: Path) -> None:
    annotated(project)
    project.train(**QUICK)
    project.predict()
    files = project.export(tmp_path / "results", ["csv", "parquet", "tiff"])
    assert {file.name for file in files} >= {"objects.csv", "counts.csv", "objects.parquet", "P1_A1_classes.tif"}
    assert len(pd.read_csv(tmp_path / "results" / "objects.csv")) == 36
    written = pd.read_parquet(tmp_path / "results" / "objects.parquet")
    same_type = written.astype(project.predictions().dtypes)  # text may be read as an extension type
    pd.testing.assert_frame_equal(same_type.fillna(np.nan), project.predictions().fillna(np.nan))
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "results" / "P1_A1_classes.tif"), project.class_map("P1_A1")
    )
    with pytest.raises(ProjectError, match="different folder"):
        project.export(wells / "masks")


def test_grad_cam_explains_an_object_in_its_patch(project: Project) -> None:
    annotated(project)
    project.train(**QUICK)
    why = project.explain("P1_A1", 6)
    row = project.objects("P1_A1").loc[6]
    assert {"image", "mask", "cam"} <= set(why)
    assert why["cam"].dims == ("y", "x")
    assert float(why["cam"].min()) >= 0
    assert float(why["cam"].max()) <= 1
    assert abs(float(why["y"].mean()) - row["y"]) < 1.5
    assert abs(float(why["x"].mean()) - row["x"]) < 1.5


def test_the_workflow_in_3d_gives_a_class_map_with_planes(tmp_path: Path) -> None:
    sample = bright_foci_3d(seed=3, shape=(48, 96, 96), count=24)
    project = Project(tmp_path / "nuclei.svetlana", classes=["plain", "foci"])
    project.add("volume", sample.image, sample.mask, spacing=(1.0, 0.5, 0.5))
    for label in range(1, 13):
        project.annotate("volume", label, project.classes.names[sample.classes[label - 1]])
    project.train(preset="default", **QUICK, patches={"sampling": 16})
    project.predict()
    codes = project.class_map("volume")
    assert codes.dims == ("z", "y", "x")
    assert codes.shape == sample.mask.shape
    assert float(codes["z"][1] - codes["z"][0]) == 1.0
    assert float(codes["x"][1] - codes["x"][0]) == 0.5
    ids = project.predictions().droplevel("image")["class"].map({"plain": 1, "foci": 2})
    np.testing.assert_array_equal(codes, np.concatenate([[0], ids])[sample.mask])
    assert project.explain("volume", 3)["cam"].dims == ("z", "y", "x")


def test_a_kill_during_training_keeps_annotations_and_the_last_run(project: Project) -> None:
    annotated(project)
    project.train(**QUICK)
    project.annotations.file.close()
    code = (
        "from svetlana_jupyter.project.project import Project\n"
        f"project = Project({str(project.path)!r}, annotator='ann')\n"
        "project.observe(lambda change: print(len(change['new'].epochs), flush=True), 'training_curve')\n"
        "project.annotate('P1_A2', 1, 'dim')\n"
        "project.train(preset='default', epochs=100_000, width=8, depth=2, threads=1)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 3:
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    again = Project(project.path, annotator="ann")
    assert again.current_run == "0001"
    assert [run.name for run in again.runs] == ["0001"]
    assert again.annotations.label_of("P1_A2", 1).action == "label"
    assert len(again.labels()) == 9
    again.train(**QUICK)
    assert again.current_run == "0002"


def test_results_are_stored_for_any_image_name(tmp_path: Path) -> None:
    project = Project(tmp_path / "odd.svetlana", classes=CLASSES)
    project.settings = TrainingSettings(preset="default")
    name = "plate 1/<b>µ</b> “A1”"
    project.add(name, *squares())
    for label in range(1, 9):
        project.annotate(name, label, truth(label))
    project.train(**QUICK)
    project.predict()
    assert (project.runs.current.path / "predictions" / f"{file_name(name)}.parquet").exists()
    assert "<b>" not in project._repr_html_().replace("<b>odd.svetlana</b>", "")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
