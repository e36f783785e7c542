"""Training of a project: object selection, model selection, custom networks and initial weights.

Training leaves out the same objects as counts. The preset search stores its results and reports a score corrected for
selection.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch

from svetlana_jupyter.core import allowed_cues
from svetlana_jupyter.core.settings import CANDIDATE_PRESETS, TrainingSettings
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.learn import preset_search as search_module
from svetlana_jupyter.learn import search_plan as planning
from svetlana_jupyter.project import training_job as searching
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.project.runs import RECORD_FILE, read_runs
from svetlana_jupyter.project.training_task import TrainingTask, select_training_objects
from svetlana_jupyter.samples import stripes
from tests.project.conftest import squares
from tests.project.test_stop import stop_in
from tests.project.test_whole_loop import QUICK, truth

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from svetlana_jupyter.learn.preset_search import SearchResult, SearchStopped
    from svetlana_jupyter.learn.training import WorkProgress
    from svetlana_jupyter.project.jobs import JobState


@pytest.fixture
def uneven(project: Project) -> Project:
    """Project with two additional annotated images, with objects of several sizes and one at the border."""
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


def naive_selection(project: Project, border: bool, low: float, high: float) -> tuple[set, int, int]:
    """Select objects pixel by pixel; return them and how many are at the border or of another size."""
    selected, at_border, other = set(), 0, 0
    for image, label in project.test_set.training_labels().index:
        pixels = np.asarray(project.pair(image).mask) == label
        edge = np.ones_like(pixels)
        edge[1:-1, 1:-1] = False
        if border and (pixels & edge).any():
            at_border += 1
        elif not low <= pixels.sum() <= high:
            other += 1
        else:
            selected.add((image, label))
    return selected, at_border, other


@pytest.mark.parametrize(
    ("border", "size"), [(True, None), (False, (100, None)), (True, (100, 144)), (True, (None, 108)), (False, (96, 96))]
)
def test_selected_training_objects_match_a_naive_selection(uneven: Project, border: bool, size) -> None:
    low, high = size or (None, None)
    selected, at_border, other = naive_selection(uneven, border, low or 0, high or np.inf)
    labels, note = select_training_objects(uneven.test_set.training_labels(), uneven.objects, border, size)
    assert set(labels.index) == selected
    assert len(labels) == len(selected)
    assert at_border + other
    assert (f"{at_border} at the border" in note) == (at_border > 0)
    assert (f"{other} by their size" in note) == (other > 0)
    counted = uneven.counts(exclude_border=border, size=(low, high))
    assert counted["total"][0] == len(selected), "counts leave out the same"


def test_without_limits_all_labels_are_selected(uneven: Project) -> None:
    for size in (None, (None, None)):
        labels, note = select_training_objects(uneven.test_set.training_labels(), uneven.objects, False, size)
        assert len(labels) == 24
        assert note == ""


def test_training_uses_only_selected_objects_and_predicts_all(uneven: Project) -> None:
    uneven.settings = uneven.settings.changed(exclude_border=True, size=(100, None))
    selected, _, _ = naive_selection(uneven, True, 100, np.inf)
    run = uneven.train(predict=True, **QUICK)
    assert sum(run.labels.values()) == len(selected) == 24 - 2 * 3
    assert "left out of training: 2 at the border of their image and 4 by their size." in " ".join(run.remarks)
    uneven.evaluate()
    held_out = run.held_out()
    assert held_out is not None
    assert set(zip(held_out["image"], held_out["object"])) <= selected
    assert uneven.predictions()["predicted"].notna().all()
    assert not uneven.evaluate().outdated
    uneven.settings = uneven.settings.changed(exclude_border=False)
    assert not uneven.evaluate().outdated, "the run is asked, not what comes next"
    uneven.annotate("odd", 5, "bright")
    assert uneven.evaluate().outdated


def test_limits_of_a_call_are_applied_before_it_starts(uneven: Project) -> None:
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
def _short_search() -> Iterator[None]:
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(planning.MIN_FIRST_STEPS, 2, 12)
        yield
    torch.set_num_threads(before)


@dataclass
class Recorded:
    project: Project
    events: list[WorkProgress | SearchResult | SearchStopped]
    states: list[JobState]
    current_runs: list[str]


def striped(folder: Path) -> Project:
    """Return a project of disks that differ only in the direction of stripes, with settings that train quickly."""
    sample = stripes(0, size=300, count=40)
    project = Project(folder / "stripes.svetlana", classes=CLASSES, annotator="ann")
    project.add("stripes", sample.image, sample.mask, axes="yx")
    project.settings = QUICK_SEARCHING
    return project


def annotate(project: Project, objects: range) -> Project:
    names = stripes(0, size=300, count=40).class_names()
    for label in objects:
        project.annotate("stripes", label, names[label])
    return project


@pytest.fixture(scope="module")
def recorded(_short_search: None, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Project after a preset search, with the events of the search and the states of the job.

    The live classifier is left out, so that a network is selected.
    """
    project = annotate(striped(tmp_path_factory.mktemp("searched")), range(1, 25))
    found = Recorded(project, [], [], [])
    project.observe(lambda change: found.current_runs.append(change["new"]), "current_run")
    project.observe(lambda change: found.states.append(change["new"]) if change["new"] else None, "job")

    def record(*args, **how):
        for event in search(*args, **how):
            found.events.append(event)
            yield event

    search = search_module.search
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_module, "search", record)
        patch.setattr(allowed_cues, "CANDIDATE_PRESETS", [name for name in CANDIDATE_PRESETS if name != "live"])
        project.train()
    assert project._jobs.lane.wait(60), "so that no score is written while the project is copied"
    return found


@pytest.fixture(scope="module")
def searched_project(recorded: Recorded) -> Project:
    """Project after a preset search; tests that train again use `project_copy`."""
    return recorded.project


@pytest.fixture
def project_copy(searched_project: Project, tmp_path: Path) -> Project:
    """Copy of the searched project."""
    return Project.from_zip(searched_project.save_zip(tmp_path / "copy.zip", arrays=True), tmp_path / "copy.svetlana")


def weights(project: Project, run: str) -> bytes:
    return (project.runs[run].path / "weights.safetensors").read_bytes()


def test_a_preset_that_preserves_orientation_is_selected_and_stored(searched_project: Project) -> None:
    run = searched_project.runs["0002"]
    assert run.settings["preset"] in ("oriented", "plain")
    assert TrainingSettings(**run.settings).augmentation.rotation in ("half_turns", "none")
    stored = json.loads((run.path / "classifier.json").read_text())["settings"]
    assert stored == run.settings
    assert stored["epochs"] == QUICK_SEARCHING.epochs
    assert stored["patches"]["sampling"] == [17, 17]
    assert (
        run.choice == f"Preset {run.settings['preset']} was selected among {len(run.search_results())} on 24 objects."
    )


def test_search_results_are_stored_as_a_table(searched_project: Project) -> None:
    results = read_runs(searched_project.path / "runs")["0002"].search_results()
    run = searched_project.runs["0002"]
    assert list(results.columns) == [
        *("accuracy", "low", "high", "balanced", "merit", "finalist", "epochs", "seconds", "chosen")
    ]
    assert set(results.index) <= set(CANDIDATE_PRESETS)
    assert {"default", "oriented", "plain", "forest"} <= set(results.index)
    assert results.index[results["chosen"]].tolist() == [run.settings["preset"]] == [results.index[0]]
    assert ((results["low"] <= results["accuracy"]) & (results["accuracy"] <= results["high"])).all()
    assert results["finalist"].sum() == 3, "two networks and the forest"
    assert pd.isna(results.loc["forest", "epochs"])
    assert (results.loc[results["finalist"], "epochs"].dropna() == QUICK_SEARCHING.epochs).all()
    assert (results.loc[~results["finalist"], "epochs"] == 2).all(), "as short as the first round"
    assert results.loc["default", "accuracy"] < results.loc[run.settings["preset"], "accuracy"]
    assert 0 < results["seconds"].sum() <= run.seconds, "the time of a run counts its search, here on one core"


def test_training_with_the_selected_settings_gives_identical_weights(project_copy: Project) -> None:
    run = project_copy.train(project_copy.runs["0002"].settings)
    assert weights(project_copy, "0002") == weights(project_copy, "0003")
    assert run.settings == project_copy.runs["0002"].settings
    assert run.choice == ""
    assert run.search_results().empty, "these settings name their preset"


def test_the_score_is_corrected_for_selection_and_includes_the_forest(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *progress, found = recorded.events
    outer = found.nested_table.copy()
    names, first = [name for name in outer if name.startswith("p_")], outer["fold"] == 1
    outer["predicted"] = outer["predicted"].where(~first, 3 - outer["truth"])
    outer.loc[first, names] = np.eye(2, dtype=np.float32)[outer.loc[first, "predicted"] - 1]
    found = replace(found, nested_table=outer)  # the first fold has a wrong selection, as among similar candidates
    monkeypatch.setattr(search_module, "search", lambda *args: iter([*progress, found]))
    project = annotate(striped(tmp_path), range(1, 25))
    run = project.train()
    right = (found.nested_table["predicted"] == found.nested_table["truth"]).mean()
    assert right < run.search_results()["accuracy"].max()
    report = project.evaluate()
    assert report.network.accuracy.value == pytest.approx(right)
    assert report.source == "cross-validation"
    assert "the preset selected on the other folds" in report.text
    raw = run.held_out()[[name.replace("p_", "raw_") for name in names]]
    np.testing.assert_allclose(raw, found.nested_table[names], atol=1e-6)
    forest = next(one.table for one in found.candidates if one.preset == "forest")
    assert report.forest.accuracy.value == pytest.approx((forest["predicted"] == forest["truth"]).mean())
    assert run.search_results().loc["forest", "accuracy"] == report.forest.accuracy.value


def test_a_selected_preset_is_reused(project_copy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_compare_presets", no_search)
    run = project_copy.train()
    assert run.settings == project_copy.runs["0002"].settings
    assert weights(project_copy, "0002") == weights(project_copy, "0003")
    assert run.choice == f"Preset {run.settings['preset']} was selected in run 0002."
    assert run.search_results().empty
    caveat = "Run 0002 selected the preset on some of these objects: the score may be slightly too good."
    assert caveat in project_copy.evaluate().text
    other = project_copy.train(seed=3, device="cpu")
    assert other.settings["preset"] == run.settings["preset"]
    assert other.settings["seed"] == 3
    assert weights(project_copy, "0004") != weights(project_copy, "0002")


def no_search(*_: object) -> None:
    raise AssertionError("presets are tried")


@pytest.mark.parametrize("why", ["asked for", "other settings", "twice as many", "another class"])
def test_a_changed_project_repeats_the_search(project_copy: Project, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    monkeypatch.setattr(searching, "_compare_presets", no_search)
    how = {"asked for": {"search": True}, "other settings": {"may_use": ["orientation", "brightness"]}}.get(why, {})
    if why == "another class":
        project_copy.classes.add("neither")
        project_copy.annotate("stripes", [26, 27, 28, 29, 30], "neither")
    if why == "twice as many":
        monkeypatch.setattr(searching, "SEARCH_AGAIN_FACTOR", 26 / 24)
        annotate(project_copy, range(25, 26))
        project_copy.train()
        annotate(project_copy, range(26, 27))
    with pytest.raises(AssertionError, match="presets are tried"):
        project_copy.train(**how)


def test_the_augmentation_preview_uses_the_selected_preset(project_copy: Project, tmp_path: Path) -> None:
    shown = TrainingSettings.from_json(project_copy.preview_augmentation("stripes", 1).attrs["settings"])
    assert shown.preset == project_copy.runs["0002"].settings["preset"]
    assert shown.augmentation == TrainingSettings(preset=shown.preset).augmentation
    new = annotate(striped(tmp_path), range(1, 5))
    assert TrainingSettings.from_json(new.preview_augmentation("stripes", 1).attrs["settings"]).preset == "auto"


def test_a_requested_search_needs_the_auto_preset(searched_project: Project) -> None:
    with pytest.raises(ProjectError, match=r'the settings use preset "oriented"\. Pass preset="auto"'):
        searched_project.train(search=True, preset="oriented")
    assert searched_project.job is None


def test_too_few_labels_train_the_default_preset_with_a_note(tmp_path: Path) -> None:
    project = striped(tmp_path)
    names = stripes(0, size=300, count=40).class_names()
    for name, count in zip(CLASSES, (6, 4), strict=True):
        project.annotate("stripes", [label for label in names if names[label] == name][:count], name)
    run = project.train(epochs=1)
    assert run.settings["preset"] == "default"
    assert run.search_results().empty
    message = (
        "The default preset was used, since presets are compared only with at least 5 annotated objects of two classes"
    )
    assert run.choice == f"{message}."
    assert "5 annotated objects of two classes, but vertical has 4" in run.note
    assert read_runs(project.path / "runs")["0001"].choice == run.choice


@pytest.mark.parametrize(("epochs", "left_out"), [(40, {"plain"}), (6, set())])
def test_presets_too_slow_for_the_search_are_skipped_unless_epochs_are_given(
    epochs: int, left_out: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests, cut = [], []
    monkeypatch.setattr(allowed_cues, "CANDIDATE_PRESETS", ("default", "plain", "forest"))

    def affordable_candidates(results: dict[str, TrainingSettings], n: int, channels: int) -> list[str]:
        requests.append((n, channels, {one.patches.is_frozen for one in results.values()}))
        return [name for name in results if name not in left_out]

    def collect_for_each(self, several, parts):
        cut.append({settings.preset for settings in several})
        return gathering(self, several, parts)

    gathering = TrainingTask.collect_for_each
    monkeypatch.setattr(TrainingTask, "collect_for_each", collect_for_each)
    monkeypatch.setattr(planning, "affordable_candidates", affordable_candidates)
    project = annotate(striped(tmp_path), range(1, 25))
    run = project.train(epochs=epochs, steps=1)
    assert requests == ([(24, 1, {True})] if left_out else [])
    candidates = set(allowed_cues.candidate_presets(project.settings))
    assert candidates > left_out
    assert set(run.search_results().index) == cut[0] | cut[1] == candidates - left_out
    assert cut[0] == {"forest"}, "patches are cut later"
    assert f"was selected among {len(candidates - left_out)} on 24" in run.choice


def test_a_selected_forest_is_reused(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize(("how", "message"), [({"architecture": "forest"}, ""), ({"norm": "group"}, "tried")])
def test_a_forest_needs_no_search(
    project_copy: Project, monkeypatch: pytest.MonkeyPatch, how: dict, message: str
) -> None:
    monkeypatch.setattr(searching, "_compare_presets", no_search)
    if message:
        with pytest.raises(AssertionError, match=message):
            project_copy.train(**how)
    else:
        assert project_copy.train(**how).choice == ""


def test_a_network_initialized_from_a_run_keeps_its_preset(
    project_copy: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "_compare_presets", no_search)
    run = project_copy.train(start_from="0002", epochs=1)
    assert run.settings["preset"] == project_copy.runs["0002"].settings["preset"]
    assert run.choice == f"Preset {run.settings['preset']} was used as in run 0002, from which training started."


@pytest.mark.parametrize("stage", ["starting", "measuring objects"])
def test_a_stop_before_the_first_training_of_a_search_leaves_no_run(tmp_path: Path, stage: str) -> None:
    project = annotate(striped(tmp_path), range(1, 25))
    stop_in(project, stage)
    assert not project.runs
    assert not list(project._folder.runs_folder.glob("*"))
    assert project.status == "Stopped before anything was trained."


def test_a_forest_is_stored_before_presets_are_compared(recorded: Recorded) -> None:
    first, second = recorded.project.runs
    assert (first.settings["preset"], first.settings["architecture"]) == ("forest", "forest")
    assert first.choice == "First result, before presets were compared."
    assert sum(first.labels.values()) == 24, "it is trained on all annotations"
    stored, searched = (
        next(n for n, state in enumerate(recorded.states) if text in state.text) for text in ("measuring", "comparing")
    )
    assert stored < searched
    assert recorded.current_runs == ["0001", "0002"]
    tables = {one.preset: one.table for one in recorded.events[-1].candidates}
    np.testing.assert_allclose(first.held_out()[["raw_1", "raw_2"]], tables["forest"][["p_1", "p_2"]], atol=1e-6)
    assert first.note == "Cross-validation on 24 annotated objects, held out by whole groups."
    assert first.search_results().empty
    assert recorded.project.runs.current is second


def test_a_stop_during_the_search_keeps_the_first_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowed_cues, "CANDIDATE_PRESETS", ("plain", "oriented", "default", "forest"))
    project = annotate(striped(tmp_path), range(1, 25))
    stop_in(project, "3 of 6")
    (run,) = project.runs
    assert project.current_run == "0001"
    assert run.settings["preset"] == "forest"
    assert sum(run.labels.values()) == 24
    assert run.note == "No accuracy estimate yet: the comparison of presets was stopped."
    assert project.runs.score(run).source == "no estimate yet"
    assert project.evaluate().source == "cross-validation", "that of the forest alone"
    assert run.search_results().empty
    project.predict()
    assert project.predictions()["predicted"].notna().all()
    compared = []
    monkeypatch.setattr(searching, "_compare_presets", lambda *args: compared.append(args) or no_search(*args))
    with pytest.raises(AssertionError):
        project.train()
    assert compared, "an unfinished comparison is repeated"


def test_the_live_classifier_is_selected_where_the_forest_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowed_cues, "CANDIDATE_PRESETS", ("default", "forest", "live"))
    project = annotate(striped(tmp_path), range(1, 25))
    run = project.train()
    results = run.search_results()
    assert run.settings["preset"] == results.index[0] == "live"
    assert results.loc[["forest", "live"], "epochs"].isna().all()
    assert results.loc["live", "accuracy"] > results.loc["forest", "accuracy"]
    assert run.held_out() is not None
    project.predict()
    assert project.predictions()["predicted"].notna().all()


def test_a_stop_while_the_live_classifier_is_best_fits_it_to_all_annotations(tmp_path: Path) -> None:
    project = annotate(striped(tmp_path), range(1, 25))
    stop_in(project, "3 of 1")
    first, run = project.runs
    assert (first.settings["preset"], run.settings["preset"]) == ("forest", "live")
    assert run.choice == (
        "The comparison of presets was stopped: preset live was the best so far, trained on 24 objects."
    )
    project.predict()
    assert project.predictions()["predicted"].notna().all()


def test_a_stop_after_a_better_network_was_found_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowed_cues, "CANDIDATE_PRESETS", ("plain", "oriented", "default", "forest"))
    monkeypatch.setattr(search_module, "GAIN_PER_SECOND", 0.0)
    project = annotate(striped(tmp_path), range(1, 25))
    seen = []

    def stop_in_the_second_finalist(change) -> None:
        if change["new"] and change["new"].text.startswith("comparing preset "):
            seen.append(change["new"].text.split(":")[0])
        if len(set(seen)) > 2:
            project.stop()

    project.observe(stop_in_the_second_finalist, "job")
    project.train()
    assert [run.settings["preset"] == "forest" for run in project.runs] == [True, False]
    run = project.runs.current
    assert run.stopped
    assert re.fullmatch(
        rf"The comparison of presets was stopped: preset {run.settings['preset']} was the best so far, "
        r"trained on 1\d objects for 6 epochs\.",
        run.choice,
    )
    assert Project(project.path).runs["0002"].choice == run.choice


def test_a_stop_in_the_final_training_keeps_network_and_search_results(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "search", lambda *args: iter(recorded.events))
    project = annotate(striped(tmp_path), range(1, 25))
    stop_in(project, "training")
    first, run = project.runs
    assert not first.stopped
    assert run.stopped
    assert len(run.history) == QUICK_SEARCHING.epochs, "the classifier of a fold is kept, which was trained to the end"
    assert re.fullmatch(r"The training on all annotations was stopped: .* trained on 1\d of them\.", run.remarks[-1])
    assert not run.search_results().empty
    assert project.evaluate().source == "no estimate yet"
    assert "Stopped before the score" in run.note
    monkeypatch.setattr(searching, "_compare_presets", no_search)
    assert project.train().settings["preset"] == run.settings["preset"]
    assert not project.runs.current.stopped


def test_search_progress_reports_the_preset_and_remaining_time(recorded: Recorded) -> None:
    texts = [state.text for state in recorded.states]
    search_states = [state for state in recorded.states if state.text.startswith(("trying ", "comparing "))]
    assert search_states[0].text == "comparing presets"
    assert search_states[0].seconds_left is None
    times = [state.seconds_left for state in search_states if 0 < state.done < state.total]
    assert all(time is None or time > 0 for time in times)
    assert texts.index("comparing presets") < texts.index("training")
    assert recorded.project.training_curve.total == QUICK_SEARCHING.epochs


def test_a_search_with_many_annotations_subsamples_each_image(project_copy: Project) -> None:
    parts = project_copy._task(None, {}, 1).parts()
    pair, objects, classes = parts[0]
    several = [(pair, objects, classes.iloc[:10]), (pair, objects, classes.iloc[10:])]
    subsample = searching._subsample(several, 8, seed=0)
    kept = pd.concat([part[2] for part in subsample])
    assert kept.index.is_unique
    assert kept.equals(classes.loc[kept.index])
    assert len(subsample) == 2
    assert len(searching._subsample(several, 24, seed=0)[1][2]) == 14
    assert kept.value_counts().min() >= min(20, classes.value_counts().min())


def test_the_error_names_an_unreadable_search_result(project_copy: Project) -> None:
    file = project_copy.runs["0002"].path / RECORD_FILE
    file.write_text("[")
    with pytest.raises(ProjectError, match=r"tried\.json cannot be read .* Remove it"):
        project_copy.train()
    file.unlink()
    assert project_copy.runs["0002"].search_results().empty


def test_an_unknown_stored_preset_repeats_the_search(project_copy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    file = project_copy.runs["0002"].path / RECORD_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chosen": "newer"}))
    monkeypatch.setattr(searching, "_compare_presets", no_search)
    with pytest.raises(AssertionError, match="presets are tried"):
        project_copy.train()
