"""A project finds the recipe that its classes need, keeps what it tried, reports the score of choosing, and goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from svetlana_jupyter.core import candidates
from svetlana_jupyter.core.recipes import CANDIDATE_PRESETS
from svetlana_jupyter.core.samples import stripes
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.learn import plan as planning
from svetlana_jupyter.learn import search as search_module
from svetlana_jupyter.project import searching
from svetlana_jupyter.project.jobs import JobState, Pace, Progress
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.project.runs import read_runs
from svetlana_jupyter.project.training import TrainingTask
from svetlana_jupyter.project.tried import FILE
from tests.project.test_stop import stop_in

QUICK = TrainingSettings(
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
    made.settings = QUICK
    return made


def annotate(project: Project, objects: range) -> Project:
    known = stripes(0, size=300, count=40).class_names()
    for object in objects:
        project.annotate("stripes", object, known[object])
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
    return (project.run(run).path / "weights.safetensors").read_bytes()


def test_the_recipe_that_keeps_the_direction_is_found_and_stored(searched: Project) -> None:
    run = searched.run("0001")
    assert run.settings["recipe"] in ("oriented", "plain")
    assert TrainingSettings(**run.settings).augmentation.rotation in ("half_turns", "none")
    stored = json.loads((run.path / "classifier.json").read_text())["settings"]
    assert stored == run.settings and stored["epochs"] == QUICK.epochs and stored["patches"]["sampling"] == [17, 17]
    assert run.choice == f"Recipe {run.settings['recipe']} was chosen of {len(run.tried())} by 24 annotated objects."


def test_what_was_tried_is_kept_as_a_table(searched: Project) -> None:
    tried = read_runs(searched.path / "runs")["0001"].tried()
    run = searched.run("0001")
    assert list(tried.columns) == [
        *("accuracy", "low", "high", "balanced", "merit", "finalist", "epochs", "seconds", "chosen")
    ]
    assert set(tried.index) <= set(CANDIDATE_PRESETS) and {"default", "oriented", "plain", "forest"} <= set(tried.index)
    assert tried.index[tried["chosen"]].tolist() == [run.settings["recipe"]] == [tried.index[0]]
    assert ((tried["low"] <= tried["accuracy"]) & (tried["accuracy"] <= tried["high"])).all()
    assert tried["finalist"].sum() == 4, "three networks and the forest"
    assert pd.isna(tried.loc["forest", "epochs"])
    assert (tried.loc[tried["finalist"], "epochs"].dropna() == QUICK.epochs).all()
    assert (tried.loc[~tried["finalist"], "epochs"] == 2).all(), "as short as the first round"
    assert tried.loc["default", "accuracy"] < tried.loc[run.settings["recipe"], "accuracy"]
    assert 0 < tried["seconds"].sum() <= run.seconds, "the time of a run counts its search, here on one core"


def test_training_the_chosen_settings_again_gives_the_same_weights_to_the_byte(again: Project) -> None:
    run = again.train(again.run("0001").settings)
    assert weights(again, "0001") == weights(again, "0002") and run.settings == again.run("0001").settings
    assert run.choice == "" and run.tried().empty, "these settings name their recipe"


def test_the_score_is_that_of_choosing_and_the_forests_stands_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, search = [], search_module.search

    def unlucky(*args, **how):
        """Search, and have choosing go wrong in the first fold, as it may where candidates are about as good."""
        for event in search(*args, **how):
            if isinstance(event, search_module.Found):
                names, first = [name for name in event.outer if name.startswith("p_")], event.outer["fold"] == 1
                outer = event.outer.assign(predicted=event.outer["predicted"].where(~first, 3 - event.outer["truth"]))
                outer.loc[first, names] = np.eye(2, dtype=np.float32)[outer.loc[first, "predicted"] - 1]
                event = replace(event, outer=outer)
                kept.append(event)
            yield event

    monkeypatch.setattr(search_module, "search", unlucky)
    project = annotate(striped(tmp_path), range(1, 25))
    run, (found,) = project.train(), kept
    right = (found.outer["predicted"] == found.outer["truth"]).mean()
    assert right < run.tried()["accuracy"].max()
    report = project.evaluate()
    assert report.network.accuracy.value == pytest.approx(right)
    assert report.source == "cross-validation" and "the recipe that the others choose" in report.text
    names = [name for name in found.outer if name.startswith("p_")]
    raw = run.held_out()[[name.replace("p_", "raw_") for name in names]]
    np.testing.assert_allclose(raw, found.outer[names], atol=1e-6)
    forest = next(one.table for one in found.tried if one.recipe == "forest")
    assert report.forest.accuracy.value == pytest.approx((forest["predicted"] == forest["truth"]).mean())
    assert run.tried().loc["forest", "accuracy"] == report.forest.accuracy.value


def test_a_recipe_once_chosen_is_used_again(again: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_searched", no_search)
    run = again.train()
    assert run.settings == again.run("0001").settings and weights(again, "0001") == weights(again, "0002")
    assert run.choice == f"Recipe {run.settings['recipe']} was chosen in run 0001." and run.tried().empty
    assert "Some of them chose the recipe in run 0001: the score may be a little too good." in run.note
    other = again.train(seed=3, device="cpu")
    assert other.settings["recipe"] == run.settings["recipe"] and other.settings["seed"] == 3
    assert weights(again, "0003") != weights(again, "0001")


def no_search(*_: object) -> None:
    raise AssertionError("recipes are tried")


@pytest.mark.parametrize("why", ["asked for", "other settings", "twice as many", "another class"])
def test_recipes_are_tried_again(again: Project, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    monkeypatch.setattr(searching, "_searched", no_search)
    how = {"asked for": {"search": True}, "other settings": {"may_use": ["orientation", "brightness"]}}.get(why, {})
    if why == "another class":
        again.add_class("neither")
        again.annotate("stripes", [26, 27, 28, 29, 30], "neither")
    if why == "twice as many":
        monkeypatch.setattr(searching, "GROWN", 26 / 24)
        annotate(again, range(25, 26))
        again.train()
        annotate(again, range(26, 27))
    with pytest.raises(AssertionError, match="recipes are tried"):
        again.train(**how)


def test_the_preview_of_augmentation_is_that_of_the_recipe_that_was_chosen(again: Project, tmp_path: Path) -> None:
    shown = TrainingSettings.from_json(again.preview_augmentation("stripes", 1).attrs["settings"])
    assert shown.recipe == again.run("0001").settings["recipe"]
    assert shown.augmentation == TrainingSettings(recipe=shown.recipe).augmentation
    new = annotate(striped(tmp_path), range(1, 5))
    assert TrainingSettings.from_json(new.preview_augmentation("stripes", 1).attrs["settings"]).recipe == "auto"


def test_a_search_on_request_needs_an_open_recipe(searched: Project) -> None:
    with pytest.raises(ProjectError, match='the settings name "oriented"; give recipe="auto"'):
        searched.train(search=True, recipe="oriented")
    assert searched.job is None


def test_too_few_labels_train_the_default_recipe_and_say_so(tmp_path: Path) -> None:
    project = striped(tmp_path)
    known = stripes(0, size=300, count=40).class_names()
    for name, count in zip(CLASSES, (6, 4), strict=True):
        project.annotate("stripes", [object for object in known if known[object] == name][:count], name)
    run = project.train(epochs=1)
    assert run.settings["recipe"] == "default" and run.tried().empty
    said = "The default recipe was used: others are compared from 5 annotated objects of each class on"
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
        cut.append({settings.recipe for settings in several})
        return gathering(self, several, parts)

    gathering = TrainingTask.collect_for_each
    monkeypatch.setattr(TrainingTask, "collect_for_each", collect_for_each)
    monkeypatch.setattr(planning, "affordable_candidates", affordable_candidates)
    project = annotate(striped(tmp_path), range(1, 25))
    run = project.train(epochs=epochs, steps=1)
    assert asked == ([(24, 1, {True})] if left_out else [])
    usual = set(candidates.candidates(project.settings))
    assert usual > left_out
    assert set(run.tried().index) == cut[0] == usual - left_out
    assert f"was chosen of {len(usual - left_out)} by 24" in run.choice


def test_a_forest_may_be_chosen_and_is_used_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "CANDIDATE_PRESETS", ("default", "forest"))
    project.settings = TrainingSettings(epochs=1, steps=1, depth=1, width=1, folds=2, trees=10, threads=1)
    for name in ("P1_A1", "P1_A2"):
        project.annotate(name, [1, 3, 5, 7], "dim")
        project.annotate(name, [2, 4, 6, 8], "bright")
    first, second = project.train(), project.train()
    for run in (first, second):
        assert (run.settings["recipe"], run.settings["architecture"]) == ("forest", "forest")
    assert weights(project, "0001") == weights(project, "0002")
    assert second.choice == "Recipe forest was chosen in run 0001."
    assert project.evaluate("0001").network.accuracy.value == project.evaluate("0001").forest.accuracy.value == 1.0
    project.predict(["P2_A1"])
    assert project.predictions(["P2_A1"])["predicted"].tolist() == ["dim", "bright"] * 6


@pytest.mark.parametrize(("how", "said"), [({"architecture": "forest"}, ""), ({"norm": "group"}, "tried")])
def test_there_is_nothing_to_choose_for_a_forest(
    again: Project, monkeypatch: pytest.MonkeyPatch, how: dict, said: str
) -> None:
    monkeypatch.setattr(searching, "_searched", no_search)
    if said:
        with pytest.raises(AssertionError, match=said):
            again.train(**how)
    else:
        assert again.train(**how).choice == ""


def test_a_network_that_begins_with_a_run_keeps_its_recipe(again: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_searched", no_search)
    run = again.train(start_from="0001", epochs=1)
    assert run.settings["recipe"] == again.run("0001").settings["recipe"]
    assert run.choice == f"Recipe {run.settings['recipe']} is that of run 0001, with which training began."


@pytest.mark.parametrize("stage", ["cutting patches", "trying recipes"])
def test_a_stop_before_the_recipe_is_found_leaves_no_run(tmp_path: Path, stage: str) -> None:
    project = annotate(striped(tmp_path), range(1, 25))
    stop_in(project, stage)
    assert project.runs == [] and not list(project._store.runs_folder.glob("*"))
    assert project.status == "Stopped before anything was trained."


def test_a_stop_in_the_final_training_keeps_what_there_is_and_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = annotate(striped(tmp_path), range(1, 25))
    stop_in(project, "training")
    run = project.run("0001")
    assert run.stopped and not run.tried().empty
    assert project.evaluate().source == "not known yet" and "Stopped before the score" in run.note
    monkeypatch.setattr(searching, "_searched", no_search)
    assert project.train().settings["recipe"] == run.settings["recipe"]


def test_progress_tells_what_is_tried_and_the_time_left(tmp_path: Path) -> None:
    project = annotate(striped(tmp_path), range(1, 25))
    seen: list[JobState] = []
    project.observe(lambda change: seen.append(change["new"]) if change["new"] else None, "job")
    project.train()
    texts = [state.text for state in seen]
    trying = [state for state in seen if state.text.startswith(("trying ", "comparing "))]
    assert trying[0].text == "trying recipes" and trying[0].seconds_left is None
    assert all(state.seconds_left > 0 for state in trying if 0 < state.done < state.total)
    assert texts.index("trying recipes") < texts.index("training")
    assert project.live.total == QUICK.epochs


def test_each_stage_starts_the_clock_anew() -> None:
    times = iter([0.0, 1.0, 100.0, 101.0])
    pace, state = Pace(lambda: next(times)), JobState("training")
    for done in (0, 5):
        state = pace.follow(state, Progress(done, 10, "first"))
    assert state.seconds_left == pytest.approx(1.0)
    for done in (1, 2):
        state = pace.follow(state, Progress(done, 10, "second"))
    assert state.seconds_left == pytest.approx(8.0)


def test_many_annotations_are_tried_on_some_of_each_image(again: Project) -> None:
    parts = again._task(None, {}, 1).parts()
    pair, objects, classes = parts[0]
    several = [(pair, objects, classes.iloc[:10]), (pair, objects, classes.iloc[10:])]
    few = searching._some(several, 8, seed=0)
    kept = pd.concat([part[2] for part in few])
    assert kept.index.is_unique and kept.equals(classes.loc[kept.index]) and len(few) == 2
    assert len(searching._some(several, 24, seed=0)[1][2]) == 14
    assert kept.value_counts().min() >= min(20, classes.value_counts().min())


def test_what_was_tried_and_cannot_be_read_is_named(again: Project) -> None:
    file = again.run("0001").path / FILE
    file.write_text("[")
    with pytest.raises(ProjectError, match=r"tried\.json cannot be read .* remove that file"):
        again.train()
    file.unlink()
    assert again.run("0001").tried().empty


def test_an_unknown_recipe_in_the_file_is_searched_for_anew(again: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    file = again.run("0001").path / FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chosen": "newer"}))
    monkeypatch.setattr(searching, "_searched", no_search)
    with pytest.raises(AssertionError, match="recipes are tried"):
        again.train()
