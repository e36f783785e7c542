"""What counts leave out by place or size, training leaves out too, and says so.

A project finds the preset that its classes need, keeps what it tried, reports the score of choosing, and goes on.

A network of one's own and weights of earlier runs through a project, which a stranger's file can't abuse.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from svetlana_jupyter.core import allowed_cues
from svetlana_jupyter.core.settings import CANDIDATE_PRESETS, TrainingSettings
from svetlana_jupyter.errors import ClassifierError, InputError, ProjectError
from svetlana_jupyter.learn import preset_search as planning
from svetlana_jupyter.learn import preset_search as search_module
from svetlana_jupyter.learn.classifier import load_classifier
from svetlana_jupyter.project import training_job as searching
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.project.runs import RECORD_FILE, read_runs
from svetlana_jupyter.project.training_task import TrainingTask, select_training_objects
from svetlana_jupyter.samples import stripes
from tests.learn.networks import Flat, Plain
from tests.project.conftest import squares
from tests.project.test_stop import stop_in
from tests.project.test_whole_loop import QUICK, annotated, truth

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from svetlana_jupyter.project.jobs import JobState


@pytest.fixture
def uneven(project: Project) -> Project:
    """Two more images: in each, objects of several sizes, one of them at the border, and all of them annotated."""
    for name, seed in (("odd", 5), ("even", 6)):
        image, mask = squares(seed=seed)
        for annotation, erode_masks in ((3, 6), (4, 9), (7, 8)):
            mask[mask == annotation] = 0
            row, column = divmod(annotation - 1, 4)
            mask[row * 24 + 6 : row * 24 + 6 + erode_masks, column * 24 + 6 : column * 24 + 18] = annotation
        mask[:18, 6:18] = 1
        project.add(name, image, mask, axes="yx")
        for label in range(1, 13):
            project.annotate(name, label, truth(label))
    return project


def naive(project: Project, border: bool, low: float, high: float) -> tuple[set, int, int]:
    """Look at the pixels of each mask: who is left, how many are at the border, and how many of another size."""
    left, at_border, other = set(), 0, 0
    for image, label in project.test_set.training_labels().index:
        pixels = np.asarray(project.pair(image).mask) == label
        edge = np.ones_like(pixels)
        edge[1:-1, 1:-1] = False
        if border and (pixels & edge).any():
            at_border += 1
        elif not low <= pixels.sum() <= high:
            other += 1
        else:
            left.add((image, label))
    return left, at_border, other


@pytest.mark.parametrize(
    ("border", "size"),
    [(True, None), (False, (100, None)), (True, (100, 144)), (True, (None, 108)), (False, (96, 96))],
)
def test_what_is_left_is_that_of_a_look_at_the_pixels(uneven: Project, border: bool, size) -> None:
    low, high = size or (None, None)
    left, at_border, other = naive(uneven, border, low or 0, high or np.inf)
    labels, says = select_training_objects(uneven.test_set.training_labels(), uneven.objects, border, size)
    assert set(labels.index) == left
    assert len(labels) == len(left)
    assert at_border + other
    assert (f"{at_border} at the border" in says) == (at_border > 0)
    assert (f"{other} by their size" in says) == (other > 0)
    counted = uneven.counts(exclude_border=border, size=(low, high))
    assert counted["total"][0] == len(left), "counts leave out the same"


def test_without_a_limit_all_are_examples(uneven: Project) -> None:
    for size in (None, (None, None)):
        labels, says = select_training_objects(uneven.test_set.training_labels(), uneven.objects, False, size)
        assert len(labels) == 24
        assert says == ""


def test_a_training_learns_from_these_alone_and_predicts_all(uneven: Project) -> None:
    uneven.settings = uneven.settings.changed(exclude_border=True, size=(100, None))
    left, _, _ = naive(uneven, True, 100, np.inf)
    run = uneven.train(predict=True, **QUICK)
    assert sum(run.labels.values()) == len(left) == 24 - 2 * 3
    assert "left out of training: 2 at the border of their image and 4 by their size." in " ".join(run.remarks)
    held = run.held_out()
    assert held is not None
    assert set(zip(held["image"], held["object"])) <= left
    assert uneven.predictions()["predicted"].notna().all()
    assert not uneven.evaluate().outdated
    uneven.settings = uneven.settings.changed(exclude_border=False)
    assert not uneven.evaluate().outdated, "the run is asked, not what comes next"
    uneven.annotate("odd", 5, "bright")
    assert uneven.evaluate().outdated


def test_what_one_call_leaves_out_counts_before_it_starts(uneven: Project) -> None:
    assert uneven.readiness() == ""
    with pytest.raises(ProjectError, match=r"none has any\. Annotated objects left out of training: 24 by their size"):
        uneven.train(size=(1000, None), **QUICK)
    uneven.settings = uneven.settings.changed(size=(None, 80))
    assert "only dim has some. Annotated objects left out" in uneven.readiness(), "object 3 alone is that small"
    uneven.train(size=None, **QUICK)


QUICK_SEARCHING = TrainingSettings(
    epochs=6, steps=6, depth=2, width=8, folds=2, trees=10, threads=1, patches={"size": 34, "sampling": 17}
)
CLASSES = ["horizontal", "vertical"]


@pytest.fixture(scope="module", autouse=True)
def _short() -> Iterator[None]:
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(planning.MIN_FIRST_STEPS, 2, 12)
        yield
    torch.set_num_threads(before)


def striped(folder: Path) -> Project:
    """Discs that only the direction of their stripes tells apart, and settings that train quickly."""
    sample = stripes(0, size=300, count=40)
    made = Project(folder / "stripes.svetlana", classes=CLASSES, annotator="ann")
    made.add("stripes", sample.image, sample.mask, axes="yx")
    made.settings = QUICK_SEARCHING
    return made


def annotate(project: Project, objects: range) -> Project:
    known = stripes(0, size=300, count=40).class_names()
    for label in objects:
        project.annotate("stripes", label, known[label])
    return project


@pytest.fixture(scope="module")
def searched(_short: None, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after a training that searched; tests that train more use `again`."""
    project = annotate(striped(tmp_path_factory.mktemp("searched")), range(1, 25))
    project.train()
    return project


@pytest.fixture
def again(searched: Project, tmp_path: Path) -> Project:
    """A copy of it."""
    return Project.from_zip(searched.save_zip(tmp_path / "copy.zip", arrays=True), tmp_path / "copy.svetlana")


def weights(project: Project, run: str) -> bytes:
    return (project.runs[run].path / "weights.safetensors").read_bytes()


def test_the_preset_that_keeps_the_direction_is_found_and_stored(searched: Project) -> None:
    run = searched.runs["0001"]
    assert run.settings["preset"] in ("oriented", "plain")
    assert TrainingSettings(**run.settings).augmentation.rotation in ("half_turns", "none")
    stored = json.loads((run.path / "classifier.json").read_text())["settings"]
    assert stored == run.settings
    assert stored["epochs"] == QUICK_SEARCHING.epochs
    assert stored["patches"]["sampling"] == [17, 17]
    assert (
        run.choice == f"Preset {run.settings['preset']} was selected among {len(run.search_results())} on 24 objects."
    )


def test_what_was_tried_is_kept_as_a_table(searched: Project) -> None:
    tried = read_runs(searched.path / "runs")["0001"].search_results()
    run = searched.runs["0001"]
    assert list(tried.columns) == [
        *("accuracy", "low", "high", "balanced", "merit", "finalist", "epochs", "seconds", "chosen")
    ]
    assert set(tried.index) <= set(CANDIDATE_PRESETS)
    assert {"default", "oriented", "plain", "forest"} <= set(tried.index)
    assert tried.index[tried["chosen"]].tolist() == [run.settings["preset"]] == [tried.index[0]]
    assert ((tried["low"] <= tried["accuracy"]) & (tried["accuracy"] <= tried["high"])).all()
    assert tried["finalist"].sum() == 4, "three networks and the forest"
    assert pd.isna(tried.loc["forest", "epochs"])
    assert (tried.loc[tried["finalist"], "epochs"].dropna() == QUICK_SEARCHING.epochs).all()
    assert (tried.loc[~tried["finalist"], "epochs"] == 2).all(), "as short as the first round"
    assert tried.loc["default", "accuracy"] < tried.loc[run.settings["preset"], "accuracy"]
    assert 0 < tried["seconds"].sum() <= run.seconds, "the time of a run counts its search, here on one core"


def test_training_the_chosen_settings_again_gives_the_same_weights_to_the_byte(again: Project) -> None:
    run = again.train(again.runs["0001"].settings)
    assert weights(again, "0001") == weights(again, "0002")
    assert run.settings == again.runs["0001"].settings
    assert run.choice == ""
    assert run.search_results().empty, "these settings name their preset"


def test_the_score_is_that_of_choosing_and_the_forests_stands_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, search = [], search_module.search

    def unlucky(*args, **how):
        """Search, and have choosing go wrong in the first fold, as it may where candidates are about as good."""
        for event in search(*args, **how):
            if isinstance(event, search_module.SearchResult):
                outer = event.nested_table.copy()
                names, first = [name for name in outer if name.startswith("p_")], outer["fold"] == 1
                outer["predicted"] = outer["predicted"].where(~first, 3 - outer["truth"])
                outer.loc[first, names] = np.eye(2, dtype=np.float32)[outer.loc[first, "predicted"] - 1]
                event = replace(event, nested_table=outer)
                kept.append(event)
            yield event

    monkeypatch.setattr(search_module, "search", unlucky)
    project = annotate(striped(tmp_path), range(1, 25))
    run, (found,) = project.train(), kept
    right = (found.nested_table["predicted"] == found.nested_table["truth"]).mean()
    assert right < run.search_results()["accuracy"].max()
    report = project.evaluate()
    assert report.network.accuracy.value == pytest.approx(right)
    assert report.source == "cross-validation"
    assert "the preset selected on the other folds" in report.text
    names = [name for name in found.nested_table if name.startswith("p_")]
    raw = run.held_out()[[name.replace("p_", "raw_") for name in names]]
    np.testing.assert_allclose(raw, found.nested_table[names], atol=1e-6)
    forest = next(one.table for one in found.candidates if one.preset == "forest")
    assert report.forest.accuracy.value == pytest.approx((forest["predicted"] == forest["truth"]).mean())
    assert run.search_results().loc["forest", "accuracy"] == report.forest.accuracy.value


def test_a_preset_once_chosen_is_used_again(again: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_compare_presets", no_search)
    run = again.train()
    assert run.settings == again.runs["0001"].settings
    assert weights(again, "0001") == weights(again, "0002")
    assert run.choice == f"Preset {run.settings['preset']} was selected in run 0001."
    assert run.search_results().empty
    assert "The preset was selected in run 0001 on some of them: the score may be slightly too good." in run.note
    other = again.train(seed=3, device="cpu")
    assert other.settings["preset"] == run.settings["preset"]
    assert other.settings["seed"] == 3
    assert weights(again, "0003") != weights(again, "0001")


def no_search(*_: object) -> None:
    raise AssertionError("presets are tried")


@pytest.mark.parametrize("why", ["asked for", "other settings", "twice as many", "another class"])
def test_presets_are_tried_again(again: Project, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    monkeypatch.setattr(searching, "_compare_presets", no_search)
    how = {"asked for": {"search": True}, "other settings": {"may_use": ["orientation", "brightness"]}}.get(why, {})
    if why == "another class":
        again.classes.add("neither")
        again.annotate("stripes", [26, 27, 28, 29, 30], "neither")
    if why == "twice as many":
        monkeypatch.setattr(searching, "SEARCH_AGAIN_FACTOR", 26 / 24)
        annotate(again, range(25, 26))
        again.train()
        annotate(again, range(26, 27))
    with pytest.raises(AssertionError, match="presets are tried"):
        again.train(**how)


def test_the_preview_of_augmentation_is_that_of_the_preset_that_was_chosen(again: Project, tmp_path: Path) -> None:
    shown = TrainingSettings.from_json(again.preview_augmentation("stripes", 1).attrs["settings"])
    assert shown.preset == again.runs["0001"].settings["preset"]
    assert shown.augmentation == TrainingSettings(preset=shown.preset).augmentation
    new = annotate(striped(tmp_path), range(1, 5))
    assert TrainingSettings.from_json(new.preview_augmentation("stripes", 1).attrs["settings"]).preset == "auto"


def test_a_search_on_request_needs_an_open_preset(searched: Project) -> None:
    with pytest.raises(ProjectError, match=r'the settings name "oriented"\. Pass preset="auto"'):
        searched.train(search=True, preset="oriented")
    assert searched.job is None


def test_too_few_labels_train_the_default_preset_and_say_so(tmp_path: Path) -> None:
    project = striped(tmp_path)
    known = stripes(0, size=300, count=40).class_names()
    for name, count in zip(CLASSES, (6, 4), strict=True):
        project.annotate("stripes", [label for label in known if known[label] == name][:count], name)
    run = project.train(epochs=1)
    assert run.settings["preset"] == "default"
    assert run.search_results().empty
    said = "The default preset was used: others are compared from 5 annotated objects per class on"
    assert run.choice == f"{said}, but vertical has 4."
    assert read_runs(project.path / "runs")["0001"].choice == run.choice


@pytest.mark.parametrize(("epochs", "left_out"), [(40, {"plain", "free"}), (6, set())])
def test_what_a_search_has_no_time_for_is_neither_cut_nor_tried_unless_the_epochs_are_given(
    epochs: int, left_out: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, cut = [], []

    def affordable_candidates(tried: dict[str, TrainingSettings], n: int, channels: int) -> list[str]:
        asked.append((n, channels, {one.patches.is_frozen for one in tried.values()}))
        return [name for name in tried if name not in left_out]

    def collect_for_each(self, several, parts):
        cut.append({settings.preset for settings in several})
        return gathering(self, several, parts)

    gathering = TrainingTask.collect_for_each
    monkeypatch.setattr(TrainingTask, "collect_for_each", collect_for_each)
    monkeypatch.setattr(planning, "affordable_candidates", affordable_candidates)
    project = annotate(striped(tmp_path), range(1, 25))
    run = project.train(epochs=epochs, steps=1)
    assert asked == ([(24, 1, {True})] if left_out else [])
    usual = set(allowed_cues.candidate_presets(project.settings))
    assert usual > left_out
    assert set(run.search_results().index) == cut[0] == usual - left_out
    assert f"was selected among {len(usual - left_out)} on 24" in run.choice


def test_a_forest_may_be_chosen_and_is_used_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowed_cues, "CANDIDATE_PRESETS", ("default", "forest"))
    project.settings = TrainingSettings(epochs=1, steps=1, depth=1, width=1, folds=2, trees=10, threads=1)
    for name in ("P1_A1", "P1_A2"):
        project.annotate(name, [1, 3, 5, 7], "dim")
        project.annotate(name, [2, 4, 6, 8], "bright")
    first, second = project.train(), project.train()
    for run in (first, second):
        assert (run.settings["preset"], run.settings["architecture"]) == ("forest", "forest")
    assert weights(project, "0001") == weights(project, "0002")
    assert second.choice == "Preset forest was selected in run 0001."
    assert project.evaluate("0001").network.accuracy.value == project.evaluate("0001").forest.accuracy.value == 1.0
    project.predict(["P2_A1"])
    assert project.predictions(["P2_A1"])["predicted"].tolist() == ["dim", "bright"] * 6


@pytest.mark.parametrize(("how", "said"), [({"architecture": "forest"}, ""), ({"norm": "group"}, "tried")])
def test_there_is_nothing_to_choose_for_a_forest(
    again: Project, monkeypatch: pytest.MonkeyPatch, how: dict, said: str
) -> None:
    monkeypatch.setattr(searching, "_compare_presets", no_search)
    if said:
        with pytest.raises(AssertionError, match=said):
            again.train(**how)
    else:
        assert again.train(**how).choice == ""


def test_a_network_that_begins_with_a_run_keeps_its_preset(again: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_compare_presets", no_search)
    run = again.train(start_from="0001", epochs=1)
    assert run.settings["preset"] == again.runs["0001"].settings["preset"]
    assert run.choice == f"Preset {run.settings['preset']} is that of run 0001, from which training started."


@pytest.mark.parametrize("stage", ["cutting patches", "comparing presets"])
def test_a_stop_before_the_preset_is_found_leaves_no_run(tmp_path: Path, stage: str) -> None:
    project = annotate(striped(tmp_path), range(1, 25))
    stop_in(project, stage)
    assert not project.runs
    assert not list(project._folder.runs_folder.glob("*"))
    assert project.status == "Stopped before anything was trained."


def test_a_stop_in_the_final_training_keeps_what_there_is_and_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = annotate(striped(tmp_path), range(1, 25))
    stop_in(project, "training")
    run = project.runs["0001"]
    assert run.stopped
    assert not run.search_results().empty
    assert project.evaluate().source == "no estimate yet"
    assert "Stopped before the score" in run.note
    monkeypatch.setattr(searching, "_compare_presets", no_search)
    assert project.train().settings["preset"] == run.settings["preset"]


def test_progress_tells_what_is_tried_and_the_time_left(tmp_path: Path) -> None:
    project = annotate(striped(tmp_path), range(1, 25))
    seen: list[JobState] = []
    project.observe(lambda change: seen.append(change["new"]) if change["new"] else None, "job")
    project.train()
    texts = [state.text for state in seen]
    trying = [state for state in seen if state.text.startswith(("trying ", "comparing "))]
    assert trying[0].text == "comparing presets"
    assert trying[0].seconds_left is None
    assert all(state.seconds_left > 0 for state in trying if 0 < state.done < state.total)
    assert texts.index("comparing presets") < texts.index("training")
    assert project.training_curve.total == QUICK_SEARCHING.epochs


def test_many_annotations_are_tried_on_some_of_each_image(again: Project) -> None:
    parts = again._task(None, {}, 1).parts()
    pair, objects, classes = parts[0]
    several = [(pair, objects, classes.iloc[:10]), (pair, objects, classes.iloc[10:])]
    few = searching._subsample(several, 8, seed=0)
    kept = pd.concat([part[2] for part in few])
    assert kept.index.is_unique
    assert kept.equals(classes.loc[kept.index])
    assert len(few) == 2
    assert len(searching._subsample(several, 24, seed=0)[1][2]) == 14
    assert kept.value_counts().min() >= min(20, classes.value_counts().min())


def test_what_was_tried_and_cannot_be_read_is_named(again: Project) -> None:
    file = again.runs["0001"].path / RECORD_FILE
    file.write_text("[")
    with pytest.raises(ProjectError, match=r"tried\.json cannot be read .* Remove it"):
        again.train()
    file.unlink()
    assert again.runs["0001"].search_results().empty


def test_an_unknown_preset_in_the_file_is_searched_for_anew(again: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    file = again.runs["0001"].path / RECORD_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chosen": "newer"}))
    monkeypatch.setattr(searching, "_compare_presets", no_search)
    with pytest.raises(AssertionError, match="presets are tried"):
        again.train()


NET = "tests.learn.networks:Plain"
STILL = {"learning_rate": 1e-12, "epochs": 1, "steps": 1}


def tensors(project: Project, run: str, network: torch.nn.Module | None = None) -> dict[str, np.ndarray]:
    return dict(load_classifier(project.runs[run].path, network).tensors())


def said_in_file(project: Project, **values) -> None:
    """Edit training.json by hand."""
    settings = json.loads(project._folder.settings_file.read_text())
    project._folder.settings_file.write_text(json.dumps(settings | values))


def test_a_network_given_as_an_object_trains_predicts_explains_and_is_asked_for_after_reopening(project):
    annotated(project)
    network = Plain(3, 2)
    run = project.train(**QUICK, network=network, predict=True)
    assert run.settings["architecture"] == "own"
    assert project.predictions()["class"].notna().all()
    project.predict(["P1_A1"])
    assert project.explain("P1_A1", 1)["cam"].notnull().all()
    project.annotations.file.close()
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
    project.background.train(**QUICK, network=Plain(3, 2))
    project._jobs.wait(60)
    assert project.trouble == ""
    assert project.runs.current.settings["architecture"] == "own"


def test_a_path_that_the_call_names_is_imported_and_scored_with_the_same_architecture(project):
    annotated(project)
    run = project.train(**QUICK, architecture=NET)
    assert run.settings["architecture"] == NET
    project.predict()


def test_opening_and_training_a_strangers_project_imports_nothing_and_says_so(project, tmp_path):
    annotated(project)
    said_in_file(project, architecture="strangers:Net")
    project.annotations.file.close()
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
    assert run.settings["start_from"] == "0001"
    assert run.remarks == ["Started from 14 of 14 weights of 0001."]
    for name, values in tensors(project, "0001").items():
        if name.endswith(("weight", "bias")):
            np.testing.assert_allclose(tensors(project, "0002")[name], values, atol=1e-6)
    project.annotations.file.close()
    again = Project(project.path, annotator="ann")
    assert again.runs["0002"].remarks == run.remarks
    said_in_file(again, start_from="0002")
    assert again.train(**QUICK).remarks[0].endswith("weights of 0002.")


def test_the_score_of_a_run_that_began_with_an_earlier_one_is_not_taken_for_granted(project):
    annotated(project, count=10)
    project.train(**QUICK)
    assert "began with run" not in project.runs.current.note
    project.train(**QUICK, start_from="0001")
    assert (
        "Training started from run 0001, which may have seen these objects: the score may be too good."
        in project.runs.current.note
    )


def test_the_file_may_name_runs_alone_but_a_call_any_weights(project, tmp_path):
    annotated(project)
    torch.manual_seed(0)
    network = Plain(3, 2)
    save_file(network.state_dict(), tmp_path / "mine.safetensors")
    place = str(tmp_path / "mine.safetensors")
    said_in_file(project, start_from=place)
    for call in ({}, {"settings": project.settings.changed(epochs=1)}):
        with pytest.raises(ProjectError, match=r"the file may only name runs.*none yet.*call project"):
            project.train(**call)
    run = project.train(**QUICK | STILL, start_from=place, network=Plain(3, 2))
    assert run.remarks[0] == f"Started from 4 of 4 weights of {place}."
    found = tensors(project, run.name, Plain(3, 2))
    np.testing.assert_allclose(found["body.out.weight"], network.out.weight.detach(), atol=1e-6)
    with pytest.raises(InputError, match="There is no"):
        project.train(**QUICK, start_from=str(tmp_path / "nowhere"))


def test_a_forest_stands_beside_a_network_of_ones_own(project):
    annotated(project, count=10)
    project.train(**QUICK, network=Plain(3, 2))
    assert project.runs.current.held_out("forest") is not None
    assert project.runs.current.held_out("network") is not None


def test_what_training_had_to_say_is_shown(project):
    annotated(project)
    texts = []
    project.observe(lambda change: texts.append(project.job.text if project.job else ""), "job")
    run = project.train(**QUICK | {"epochs": 400}, patience=2, schedule="constant")
    (remark,) = run.remarks
    assert remark.startswith("No improvement for 2 epochs")
    assert remark in texts
