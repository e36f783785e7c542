"""Live classifier: predictions that follow the labels, in a script and in the background."""

from __future__ import annotations

import itertools
import os
import threading
import time

import numpy as np
import pandas as pd
import pytest
import tifffile

from svetlana_jupyter.core.features import fitted_sources
from svetlana_jupyter.core.features.feature_sources import PatchSource
from svetlana_jupyter.errors import ClassifierError, ProjectError
from svetlana_jupyter.learn.live_head import fit_least_squares, fit_live_forest
from svetlana_jupyter.project import live, live_results
from svetlana_jupyter.project.feature_rows import IMPOSSIBLE, MISSING, PRESENT
from svetlana_jupyter.project.live_results import count_changes
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.project.typing_pause import TypingPause
from tests.blocking import block
from tests.project.conftest import reopen, squares


def label_some(project: Project, first: int = 1, last: int = 24) -> None:
    """Label objects of the first two images, which have twelve each."""
    for number in range(first, last + 1):
        image, label = ("P1_A1", number) if number <= 12 else ("P1_A2", number - 12)
        project.annotate(image, label, "bright" if label % 2 == 0 else "dim")


def truth(table: pd.DataFrame) -> np.ndarray:
    return np.where(table.index.get_level_values("object") % 2 == 0, "bright", "dim")


def probabilities(project: Project) -> np.ndarray:
    return project.predictions()[["p_dim", "p_bright"]].to_numpy()


def test_an_update_predicts_every_object(project):
    label_some(project)
    state = project.live.update()
    table = project.predictions()
    assert project.current_run == "live"
    assert (table["predicted"] == truth(table)).all()
    assert set(table["run"]) == {"live"}
    assert (state.labels, state.objects, state.missing, state.stage) == (24, 36, 0, "average")
    assert state.counts == {1: 18, 2: 18}
    assert project.live_state == state
    assert project.counts()["count"].tolist() == [18, 18]


def test_predictions_are_the_average_of_least_squares_and_forest(project):
    label_some(project)
    project.live.update()
    matrix = project.features.matrix()
    features = np.concatenate([matrix.images[name].read(slice(None)) for name in ("P1_A1", "P1_A2")])
    codes = (np.arange(1, 25) % 2 == 0).astype(np.int64)
    everything = np.concatenate([image.read(slice(None)) for image in matrix.images.values()])
    most = slice(0, matrix.blocks["oriented"].start)  # the forest gets no oriented features
    head, forest = fit_least_squares(features, codes), fit_live_forest(features[:, most], codes)
    expected = (head.probabilities(everything) + forest.probabilities(everything[:, most])) / 2
    expected[:24] = (head.leave_one_out + forest.out_of_bag) / 2  # labeled objects are predicted from the others
    np.testing.assert_allclose(probabilities(project), expected, atol=1e-5)


def test_a_wrong_label_differs_from_its_prediction_in_every_result(project, tmp_path):
    label_some(project, last=12)
    project.annotate("P1_A1", 5, "bright")
    project.live.update()
    shown = project.runs.get("live").read_predictions("P1_A1").loc[5]
    table = project.predictions().loc[("P1_A1", 5)]
    assert (table["class"], table["annotation"], table["predicted"]) == ("bright", "bright", "dim")
    assert table["p_dim"] == shown["p_1"] > 0.5
    queued = project.queue("suspect").next()
    assert queued[:2] == ("P1_A1", 5)
    assert queued.reason == f"labeled bright, but the other labels suggest dim {100 * table['p_dim']:.0f} %"
    project.export(tmp_path / "results", ["csv"])
    exported = pd.read_csv(tmp_path / "results/objects.csv").set_index(["image", "object"]).loc[("P1_A1", 5)]
    assert (exported["class"], exported["predicted"]) == ("bright", "dim")
    labeled = project.predictions().query("annotation.notna()")
    assert (labeled["class"] == labeled["annotation"]).all()  # labels count as they are
    assert (labeled["predicted"] != labeled["annotation"]).any()


def test_the_only_label_of_a_class_is_predicted_from_itself(project):
    project.annotate("P1_A1", [1, 3, 5], "dim")
    project.annotate("P1_A1", 2, "bright")
    project.live.update()
    assert project.predictions().loc[("P1_A1", 2), "predicted"] == "bright"
    assert project.queue("suspect").next() is None


def test_one_class_is_refused_with_a_sentence(project):
    with pytest.raises(ProjectError, match="Label objects of two classes"):
        project.live.update()
    project.annotate("P1_A1", [1, 3], "dim")
    with pytest.raises(ProjectError, match="Label objects of two classes"):
        project.live.update()
    assert project.current_run == ""


def test_labeled_objects_without_features_are_named_as_the_reason(project):
    label_some(project)
    project.features.add("none", lambda patches: np.full((len(patches), 2), np.nan), size=16)
    with pytest.raises(ProjectError, match="encoder none cannot be computed"):
        project.live.update()


def test_predictions_vanish_with_the_labels_they_come_from(project):
    project.annotate("P1_A1", [1, 3], "dim")
    project.annotate("P1_A1", [2, 4], "bright")
    project.live.update()
    project.undo()
    with pytest.raises(ProjectError, match="two classes"):
        project.live.update()
    assert project.predictions()["predicted"].isna().all()
    assert project.live_state.counts == {}


def test_a_score_vanishes_with_the_labels_it_comes_from(project):
    queue = project.queue("random")
    for queued in [queue.next() for _ in range(24)]:
        project.annotate(queued.image, queued.label, "bright" if queued.label % 2 == 0 else "dim")
    project.live.update()
    assert project.evaluate().network is not None
    for image in project.images:
        project.erase(image, list(range(1, 13)))
    with pytest.raises(ProjectError, match="two classes"):
        project.live.update()
    assert project.evaluate().network is None
    assert project.runs.get("live").held_out() is None


def test_changes_with_the_last_label_are_counted(project):
    label_some(project)
    assert project.live.update().changed is None
    before = project.predictions()["predicted"]
    for image in ("P1_A1", "P1_A2"):
        project.annotate(image, range(2, 13, 2), "dim")
        project.annotate(image, range(1, 13, 2), "bright")
    state = project.live.update()
    assert state.changed == (project.predictions()["predicted"] != before).sum() == 36
    assert project.live.update().changed == 36  # no new label


def test_changes_are_those_of_the_shown_predictions_and_of_the_last_label_alone(project, monkeypatch):
    counted = []
    monkeypatch.setattr(live, "count_changes", lambda *both: counted.append(both) or count_changes(*both))
    label_some(project, last=12)
    project.live.update()
    for number, name in ((2, "dim"), (5, "bright"), (8, "dim")):
        before = project.predictions()["predicted"]
        project.annotate("P1_A2", number, name)
        assert project.live.update().changed == (project.predictions()["predicted"] != before).sum()
        assert [result.stage for result, _ in counted[-2:]] == ["least squares", "average"]

    # The average of the label before is superseded: least squares alone knows what the last label changed.
    whole, counted[:] = live_results.live_results, []
    monkeypatch.setattr(live, "live_results", lambda *given: itertools.islice(whole(*given), 1))
    project.annotate("P1_A2", 3, "bright")
    project.live.update()
    monkeypatch.setattr(live, "live_results", whole)
    project.annotate("P1_A2", 4, "dim")
    project.live.update()
    assert [result.stage for result, _ in counted] == ["least squares"] * 2


def test_a_reopened_project_shows_the_same_predictions(project):
    label_some(project)
    project.live.update()
    expected = probabilities(project)
    reopened = reopen(project)
    assert reopened.current_run == "live"
    np.testing.assert_array_equal(probabilities(reopened), expected)
    assert not (project.path / "runs").exists()  # nothing but labels and features is stored


def test_the_background_gives_the_predictions_of_a_script(project):
    label_some(project, 1, 20)
    project.live.start()
    label_some(project, 21, 24)
    wait_until(
        lambda: (
            (state := project.live_state) is not None
            and (state.labels, state.stage, state.missing) == (24, "average", 0)
        )
    )
    project.live.stop()
    followed = probabilities(project)
    project.live.update()
    np.testing.assert_array_equal(followed, probabilities(project))


def test_labels_that_are_typed_fast_need_one_update(project, monkeypatch):
    label_some(project, 1, 20)
    project.live.update()
    project.live.start()
    wait_until(lambda: project._jobs.lane.wait(0) and project.live._done == project.live._wanted)
    fitted = []
    results = live.live_results
    monkeypatch.setattr(live, "live_results", lambda data, stop: fitted.append(len(data.labels)) or results(data, stop))
    project._jobs.lane.typing = TypingPause(60, 60)  # a busy machine may need longer per label than the usual pause
    for number in range(21, 25):
        project.background.key_pressed()
        label_some(project, number, number)
    assert not fitted
    project._jobs.lane.typing._pause = 0
    wait_until(lambda: project.live_state.labels == 24 and project.live._done == project.live._wanted)
    project.live.stop()
    assert fitted == [24]


def test_features_that_are_cut_off_on_disk_are_computed_again_while_labels_are_followed(project):
    label_some(project, 1, 20)
    project.live.start()
    wait_until(lambda: project._jobs.lane.wait(0) and project.live._done == project.live._wanted)
    os.truncate(next((project.path / "features/P2_A1").glob("patches-*.rows")), 100)
    label_some(project, 21, 24)
    wait_until(lambda: (project.live_state.labels, project.live_state.missing) == (24, 0))
    project.live.stop()
    assert project.trouble.startswith("Features (patches) of 12 objects of 'P2_A1' were damaged on disk.")


def test_labels_after_a_stop_are_not_followed(project, monkeypatch):
    label_some(project, 1, 20)
    project.live.start()
    wait_until(lambda: project._jobs.lane.wait(0) and project.live._done == project.live._wanted)
    begun, go_on = block(monkeypatch, live, "live_results")
    label_some(project, 21, 21)
    assert begun.wait(60)
    project.live.stop()
    begun.clear()
    go_on.set()
    assert not begun.wait(0.5)
    assert project.live_state.labels == 20


def test_features_in_the_background_do_not_replace_an_update_by_script(project, monkeypatch):
    label_some(project)
    begun, go_on, updated = threading.Event(), threading.Event(), threading.Event()
    original, results = project.features._fit, live.live_results

    def fit(*arguments):
        fitted = original(*arguments)
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            assert go_on.wait(60)
        return fitted

    def late_results(data, stop):
        if threading.current_thread() is not threading.main_thread():
            assert updated.wait(60)
        go_on.set()
        project._jobs.lane._thread.join(0.5)  # the lane waits for the job, after its work has ended
        return results(data, stop)

    monkeypatch.setattr(project.features, "_fit", fit)
    monkeypatch.setattr(live, "live_results", late_results)
    project.live.start()
    assert begun.wait(60)
    assert project.live.update().objects == 36
    updated.set()
    project.live.stop()


def test_objects_of_the_test_set_are_hidden_until_they_are_annotated(project):
    label_some(project, 1, 12)
    project.test_set.draw(20)
    state = project.live.update()
    hidden = list(project.test_set.objects)
    assert project.predictions().loc[hidden, "predicted"].isna().all()
    assert sum(state.counts.values()) == 36 - 20
    image, label = hidden[0]
    project.annotate(image, label, "dim")
    state = project.live.update()
    assert project.predictions().loc[(image, label), "predicted"] in ("dim", "bright")
    assert state.labels == 12  # labels of the test set are not used


def test_a_test_set_that_is_drawn_later_is_hidden_at_once(project):
    label_some(project, last=12)
    project.live.update()
    project.test_set.draw(20)
    hidden = project.live_state
    assert hidden.objects == sum(hidden.counts.values()) == 16
    project.live.update()
    assert project.live_state.counts == hidden.counts


def test_few_labels_have_no_score(project):
    label_some(project)
    state = project.live.update()
    assert str(state).startswith("24 labels · Not enough labels for a score")
    assert state.score is None
    assert state.score_text.startswith("Not enough labels for a score")
    assert project.evaluate().network is None


def test_the_score_counts_labels_drawn_at_random_by_group(large):
    queue = large.queue("random")
    for _ in range(24):
        image, label, _ = queue.next()
        large.annotate(image, label, "bright" if label % 2 == 0 else "dim")
    undrawn = large.predictions()["annotation"].isna()
    image, label = undrawn.index[undrawn][0]
    large.annotate(image, label, "dim")  # chosen by hand
    state = large.live.update()
    assert state.labels == 25
    assert state.score.n == 24
    assert state.score.value > 0.9
    assert state.score_text.startswith("24 labels drawn at random in ")
    assert f"balanced accuracy {state.score}" in str(state)
    report = large.evaluate()
    assert (report.run, report.network.balanced_accuracy.value) == ("live", state.score.value)


def test_the_number_of_drawn_labels_does_not_wait_for_the_score(large, monkeypatch):
    queue = large.queue("random")
    shown = [queue.next() for _ in range(26)]
    for image, label, _ in shown[:8]:
        large.annotate(image, label, "bright" if label % 2 == 0 else "dim")
    assert "(so far" in large.live.update().score_text

    def stopped(*arguments):
        raise live_results._StoppedError

    with monkeypatch.context() as patch:  # as if a label were given in the meantime
        patch.setattr(live_results, "_held_out", stopped)
        for image, label, _ in shown[8:10]:
            large.annotate(image, label, "dim")
        state = large.live.update()
        assert state.score is None
        assert f"{sum(label % 2 for _, label, _ in shown[:8]) + 2} dim" in state.score_text
    for image, label, _ in shown[10:24]:
        large.annotate(image, label, "bright" if label % 2 == 0 else "dim")
    assert large.live.update().score_text.startswith("24 labels drawn at random")
    monkeypatch.setattr(live_results, "_held_out", stopped)
    for image, label, _ in shown[24:]:
        large.annotate(image, label, "dim")
    state = large.live.update()
    assert state.score.n == 24
    assert state.score_text.startswith("24 of 26 labels drawn at random")


def test_drawn_labels_of_one_class_give_no_score(project):
    for image in ("P1_A1", "P1_A2"):
        project.annotate(image, range(2, 13, 2), "bright", source="random")
        project.annotate(image, range(1, 13, 2), "dim")
    state = project.live.update()
    assert state.score is None
    assert state.score_text.endswith("drawn at random (so far 0 dim, 12 bright)")
    assert project.evaluate().network is None
    assert project.counts()["low"].isna().all()


def test_a_scarce_class_is_left_out_of_the_score_and_named(large):
    large.classes.add("rare")
    queue = large.queue("random")
    for number in range(30):
        image, label, _ = queue.next()
        large.annotate(image, label, "rare" if number < 2 else "bright" if label % 2 == 0 else "dim")
    state = large.live.update()
    assert state.score.n == 28
    assert state.score_text.endswith("without rare")


def test_a_replaced_mask_shows_no_predictions_of_the_old_objects(project, wells):
    label_some(project)
    project.live.update()
    mask = tifffile.imread(wells / "masks/P2_A1.tif")
    tifffile.imwrite(wells / "masks/P2_A1.tif", np.where(mask > 6, 0, mask))
    project.replace_mask("P2_A1")
    assert project.predictions(["P2_A1"])["predicted"].isna().all()
    project.live.update()
    table = project.predictions(["P2_A1"])
    assert (table["predicted"] == truth(table)).all()
    assert len(table) == 6


def test_merged_classes_are_predicted_as_one(project):
    project.classes.add("gray")
    label_some(project)
    project.annotate("P2_A1", [1, 3], "gray")  # as dim as dim
    project.live.update()
    project.classes.merge("gray", into="dim")
    assert set(project.predictions()["predicted"]) == {"dim", "bright"}
    assert project.live.update().counts == {1: 18, 2: 18}


def test_predicting_with_the_live_run_updates_it(project):
    label_some(project, 1, 20)
    project.live.update()
    label_some(project, 21, 24)
    project.predict()
    assert project.live_state.labels == 24


def test_without_a_network_nothing_is_explained_and_with_one_it_explains_what_the_live_classifier_predicts(project):
    label_some(project)
    project.live.update()
    with pytest.raises(ProjectError, match=r"project\.train"):
        project.explain("P1_A1", 1)
    for seed in (0, 1):
        project.train(preset="default", epochs=1, trees=5, seed=seed)
    project.train(architecture="forest", trees=5)
    for shown, explaining in (("live", "0002"), ("0003", "0002"), ("0001", "0001")):
        project.runs.choose(shown)
        assert project.explain("P1_A1", 1).attrs["run"] == explaining
    assert project.explain("P1_A1", 1, run="0002").attrs["run"] == "0002"
    with pytest.raises(ClassifierError, match="forest"):
        project.explain("P1_A1", 1, run="0003")


def test_exports_name_the_number_of_labels_and_the_time(project, tmp_path):
    label_some(project)
    project.live.update()
    finished = project.runs.current.finished
    project.export(tmp_path / "results")
    table = pd.read_csv(tmp_path / "results/objects.csv")
    assert set(table["run"]) == {f"live, 24 labels, {finished}"}
    assert f"live, 24 labels, {finished}" in (tmp_path / "results/export.json").read_text()


@pytest.mark.parametrize("live_is_better", [True, False])
def test_a_trained_run_replaces_the_live_classifier_only_if_it_is_better(project, monkeypatch, live_is_better):
    label_some(project)
    project.live.update()
    held_out = project.live.result.held_out
    own = [f"p_{class_id}" for class_id in (1, 2)]
    certain = np.eye(2)[held_out["truth"] - 1] if live_is_better else np.full((24, 2), 0.5)
    held_out[own] = certain
    project._jobs.lane.begin_hold()  # so that the run is scored when results are read
    run = project.train(epochs=3)
    assert project.current_run == "live", "the score decides"
    assert project.predictions()["predicted"].notna().all()
    assert project.current_run == ("live" if live_is_better else run.name)
    assert ("The live classifier stays" in project.status) == live_is_better
    both = run.held_out()
    p = both.set_index(["image", "object"])[own].to_numpy()[np.arange(len(both)), both["truth"] - 1]
    if live_is_better:
        assert f"{-np.log(p.clip(0.001)).mean():.2f}" in project.status


def test_labels_of_an_image_whose_mask_changed_do_not_stop_the_others(project, wells):
    label_some(project)
    project.annotate("P2_A1", [1, 3], "dim")
    project.live.update()
    mask = tifffile.imread(wells / "masks/P2_A1.tif")
    tifffile.imwrite(wells / "masks/P2_A1.tif", np.where(mask > 6, 0, mask))
    state = project.live.update()
    assert (state.labels, state.objects) == (24, 24)
    assert project.runs.get("live").title.startswith("live, 24 labels, ")
    assert len(project.runs.get("live").training_labels()) == 24
    table = project.predictions(["P1_A1", "P1_A2"])
    assert (table["predicted"] == truth(table)).all()


def test_an_image_that_is_gone_is_not_predicted_and_its_labels_are_not_learned(project, wells):
    label_some(project)
    project.annotate("P2_A1", [1, 3], "dim")
    assert project.live.update().labels == 26
    (wells / "wells/P2_A1.tif").unlink()
    state = project.live.update()
    assert (state.labels, state.objects) == (24, 24)
    assert "P2_A1.tif is missing" in project.features.problems["P2_A1"]
    table = project.predictions()
    assert table.loc["P2_A1", "predicted"].isna().all()
    assert table.loc["P2_A1", "annotation"].dropna().tolist() == ["dim", "dim"]  # nothing is lost
    assert table.loc[["P1_A1", "P1_A2"], "predicted"].notna().all()


def test_an_image_without_features_is_predicted_with_the_next_update(project):
    label_some(project)
    project.live.update()
    project.add("new", *squares(seed=9), axes="yx")
    project.annotate("new", [1, 3], "dim")
    assert project.predictions(["new"])["predicted"].isna().all()
    assert project.queue("useful").next() is not None
    state = project.live.update()
    assert (state.labels, state.objects) == (26, 48)
    assert project.predictions(["new"])["predicted"].notna().all()


def test_a_mask_that_is_replaced_during_an_update_shows_no_predictions_of_the_old_objects(project, wells, monkeypatch):
    label_some(project)
    project.live.update()
    begun, go_on = threading.Event(), threading.Event()
    original = live.live_results

    def interrupted(data, stop):
        for result in original(data, stop):
            begun.set()
            assert go_on.wait(60)
            yield result

    monkeypatch.setattr(live, "live_results", interrupted)
    project.live.start()
    project.annotate("P1_A1", 1, "bright")
    assert begun.wait(60)
    mask = tifffile.imread(wells / "masks/P2_A1.tif")
    backwards = np.where((mask > 0) & (mask < 7), 7 - mask, 0).astype(mask.dtype)
    tifffile.imwrite(wells / "masks/P2_A1.tif", backwards)
    project.replace_mask("P2_A1")
    assert project.predictions(["P2_A1"])["predicted"].isna().all()
    go_on.set()
    wait_until(lambda: project.predictions(["P2_A1"])["predicted"].notna().all())
    project.live.stop()
    table = project.predictions(["P2_A1"])
    assert (table["predicted"] != truth(table)).all()
    assert project.trouble == ""


def test_labels_without_features_are_not_counted_as_learned(project):
    label_some(project)
    list(project.features.compute(lambda: False))
    project.features.matrix().images["P1_A1"].parts[0].state[:3] = IMPOSSIBLE
    assert project.live.update().labels == 21
    assert sum(project.runs.get("live").labels.values()) == 21
    assert not project.evaluate().outdated


def test_a_failed_update_is_reported_and_the_next_label_is_followed(project, monkeypatch):
    label_some(project, 1, 20)
    original = live.live_results
    monkeypatch.setattr(live, "live_results", lambda data, stop: 1 / 0)
    project.live.start()
    wait_until(lambda: "division by zero" in project.trouble)
    monkeypatch.setattr(live, "live_results", original)
    label_some(project, 21, 24)
    wait_until(lambda: project.live_state is not None and project.live_state.labels == 24)
    project.live.stop()


def test_features_of_labeled_objects_come_before_those_that_a_panel_shows(project, monkeypatch):
    project.annotate("P2_A1", [3, 8], "dim")
    project.annotate("P1_A2", 4, "bright")
    project.live.urgent_objects = lambda: {"P1_A2": [7, 4], "P1_A1": [5]}
    asked = []
    monkeypatch.setattr(project.features, "compute", lambda stop, first: iter(asked.append(first()) or ()))
    project.live.start()
    wait_until(lambda: asked)
    project.live.stop()
    assert asked[0] == {"P1_A2": [4, 7, 4], "P2_A1": [3, 8], "P1_A1": [5]}


def wait_until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_without_a_score_does_not_replace_the_live_classifier(project):
    label_some(project, 1, 4)
    project.live.update()
    run = project.train(epochs=2)
    assert project.current_run == "live"
    assert f"run {run.name} has too few held-out predictions" in project.status
    assert project.predictions()["predicted"].notna().all()
    project.runs.choose(run.name)
    project.runs.choose("live")
    assert project.predictions()["predicted"].notna().all()


def test_features_that_come_during_an_update_are_not_shown_as_predicted(project, monkeypatch):
    label_some(project)
    list(project.features.compute(lambda: False))
    image = project.features.matrix().images["P2_A1"]
    for part in image.parts:
        part.state[:4] = MISSING
    original = live.live_results

    def with_late_features(data, stop):
        for result in original(data, stop):
            for part in image.parts:
                part.state[:4] = PRESENT
            yield result

    monkeypatch.setattr(live, "live_results", with_late_features)
    states = []
    monkeypatch.setattr(project.features, "compute", lambda stop: iter(()))
    project.observe(lambda change: states.append(change["new"]), "live_state")
    project.live.update()
    assert {(state.objects, state.missing) for state in states} == {(32, 4)}


@pytest.mark.parametrize("first", [0, 1])
def test_two_projects_of_a_folder_show_features_that_are_computed_once(project, monkeypatch, first):
    label_some(project)
    both, computed = (project, Project(project.path, annotator="ann")), []
    monkeypatch.setattr(fitted_sources, "SAMPLE_OBJECTS", 6)  # the features of the others are missing
    next(event for event in project.features.compute(lambda: False) if event.unit == "objects")
    for each in both:
        assert not all(image.is_present.all() for image in each.features.matrix().images.values())
    original = PatchSource.compute
    monkeypatch.setattr(
        PatchSource, "compute", lambda self, pair, *args: computed.append(pair.name) or original(self, pair, *args)
    )
    with project._jobs.lane.hold():
        both[first].live.start()
        both[1 - first].live.start()
    for each in both:
        wait_until(lambda each=each: each.live_state and each.live_state.objects == 36, seconds=20)
    assert computed == ["P1_A2", "P2_A1"]
    for each in both:
        each.live.stop()
