"""Evaluation of runs: reports, their source and figures, and the comparison of runs."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.project.runs import Run, new_run, read_runs
from svetlana_jupyter.project.training_task import label_digest
from tests.project.conftest import CLASSES, squares

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

KNOWN = ("P1_A1", "P1_A2", "P2_A1")
NOTE = "Cross-validation on 240 annotated objects, held out by whole groups."


def held_out_table(n: int = 240, temperature: float = 3.0, wells: int = 6) -> pd.DataFrame:
    """Return held-out predictions of an overconfident classifier."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (n, 2))
    truth = np.array([rng.choice([1, 2], p=p) for p in softmax(logits, axis=1)])
    p = softmax(logits * temperature, axis=1).astype(np.float32)
    well = np.arange(n) % wells
    table = pd.DataFrame({"image": np.char.add("P1_A", well.astype(str)), "object": np.arange(n)})
    table = table.assign(group=table["image"], fold=well % 3 + 1, truth=truth, predicted=p.argmax(1) + 1)
    return table.assign(p_1=p[:, 0], p_2=p[:, 1])


def add_scored_run(project: Project, tables: dict[str, pd.DataFrame], note: str = NOTE) -> Run:
    """Add a run with these scores to the project, without training."""
    unscored = Run(
        name="",
        finished="2026-01-01T09:00:00+00:00",
        settings=TrainingSettings().model_dump(mode="json"),
        classes={1: "dim", 2: "bright"},
        labels={"dim": 60, "bright": 60},
        annotations=label_digest(project.test_set.training_labels()["class_id"]),
        history=[],
        seconds=1.0,
        stopped=False,
        note="Not known yet: it was not scored.",
    )
    with new_run(project._folder.runs_folder) as (_, finish):
        run = finish(unscored)
    run = run.with_score(note, tables)
    project.runs.add(run)
    project.runs.choose(run.name)
    return run


def test_the_report_names_its_source_and_matches_scikit_learn(project: Project) -> None:
    table = held_out_table()
    add_scored_run(project, {"network": table, "forest": table})
    report = project.evaluate()
    assert report.source == "cross-validation"
    assert NOTE in report.text
    result, truth, predicted = report.network, table["truth"], table["predicted"]
    assert result.accuracy.value == pytest.approx(accuracy_score(truth, predicted))
    assert result.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert result.macro_f1.value == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert list(result.by_group.index) == [f"P1_A{well}" for well in range(6)]
    assert result.groups == 6


def test_the_text_report(project: Project) -> None:
    project.flag("P1_A1", [1, 2], "ambiguous")
    project.flag("P1_A1", 3, "bad_segmentation")
    add_scored_run(project, {"network": held_out_table(), "forest": held_out_table()})
    report = project.evaluate()
    lines = str(report).splitlines()
    assert lines[0].startswith("Run 0001, cross-validation. Accuracy ")
    assert len(lines) == 8
    assert "recall" in lines[2]
    assert lines[2].lstrip().startswith("dim")
    assert lines[4] == "Intervals are over 6 groups (plate, well)."
    assert lines[5].startswith("The scored objects were not drawn at random, so the accuracy on other objects may")
    assert lines[5].endswith('project.test_set.draw(100), or label objects of project.queue("random").')
    assert "temperature" in lines[6]
    assert "perfect calibration would show" in lines[6]
    assert lines[7] == "Flagged and not scored: 2 as ambiguous, 1 as bad segmentation."


def test_the_report_asks_for_more_groups_where_few_make_the_intervals_wide(project: Project) -> None:
    add_scored_run(project, {"network": held_out_table(wells=3)})
    few = "Intervals are over 3 groups (plate, well). With labels in more of them, the intervals get narrower."
    assert few in str(project.evaluate()).splitlines()


def test_the_report_says_how_many_scored_objects_were_drawn_at_random(project: Project) -> None:
    queue = project.queue()
    drawn = [queue.next().id for _ in range(12)]
    for image, label in drawn:
        project.annotate(image, label, CLASSES[1 - label % 2])
    table = held_out_table(12).assign(image=[image for image, _ in drawn], object=[label for _, label in drawn])
    add_scored_run(project, {"network": table})
    assert "drawn at random" not in str(project.evaluate())
    others = held_out_table(4).assign(image="other")
    add_scored_run(project, {"network": pd.concat([table, others], ignore_index=True)})
    report = project.evaluate()
    assert report.sampling.startswith("Only 12 of the 16 scored objects were drawn at random, so the accuracy")
    assert report.sampling in report._repr_html_().replace("&quot;", '"')
    assert json.loads(report.to_json())["sampling"] == report.sampling


def test_a_run_with_changed_annotations_is_reported_as_outdated(project: Project) -> None:
    add_scored_run(project, {"network": held_out_table()})
    assert not project.evaluate().outdated
    project.annotate("P1_A1", 1, "dim")
    assert project.evaluate().outdated
    assert "annotations have changed" in str(project.evaluate())


def test_a_single_group_is_scored_over_objects_and_the_report_says_so(project: Project) -> None:
    add_scored_run(project, {"network": held_out_table(wells=3).assign(group="all")})
    assert "over 240 single objects. All objects are from one group" in str(project.evaluate())


def test_regions_and_grouping_columns_are_named_in_the_report(project: Project) -> None:
    table = held_out_table(wells=4)
    add_scored_run(project, {"network": table.assign(image="P1_A1", group=table["image"])})
    assert project.evaluate().interval_unit == "4 regions of one image"
    add_scored_run(project, {"network": table.assign(image=table["image"].replace({"P1_A0": "P1_A2"}))})
    assert project.evaluate().interval_unit == "4 groups (plate, well)"


def test_an_unscored_run_has_a_message_in_every_format(project: Project) -> None:
    run = add_scored_run(project, {}, note="Not known yet: a score needs at least 5 annotated objects of each class.")
    report = project.evaluate()
    assert report.source == "no estimate yet"
    assert report.network is None
    assert run.note in str(report)
    assert "needs at least 5" in report._repr_html_()
    assert json.loads(report.to_json())["network"] is None


def test_names_are_escaped_in_html(project: Project) -> None:
    project.classes.rename("dim", "<script>dim</script>")
    table = held_out_table()
    add_scored_run(project, {"network": table.assign(group="<b>" + table["group"])})
    text = project.evaluate()._repr_html_()
    assert "<script>" not in text
    assert "<b>" not in text
    assert "&lt;script&gt;" in text
    assert "&lt;b&gt;P1_A0" in text


def test_json_contains_every_figure_and_no_nan(project: Project) -> None:
    project.classes.add("never")
    add_scored_run(project, {"network": held_out_table()})
    report = project.evaluate()
    result = json.loads(report.to_json())
    assert result["network"]["accuracy"]["value"] == report.network.accuracy.value
    assert len(result["network"]["by_group"]) == 6
    assert result["forest"] is None
    assert result["network"]["confusion"][0]["class"] == "dim"
    assert result["reliability"]["error"] < result["uncalibrated"]["error"]


def test_probabilities_are_calibrated_on_held_out_objects(project: Project) -> None:
    run = add_scored_run(project, {"network": held_out_table()})
    assert run.calibration.temperature > 1.3
    assert read_runs(project.path / "runs")["0001"] == run
    raw = pd.DataFrame(
        {"predicted": [2], "probability": [0.9], "p_1": [0.1], "p_2": [0.9]}, pd.Index([1], name="object")
    )
    run.write_predictions("P1_A1", raw)
    shown = project.probabilities("P1_A1").loc[1]
    odds = np.log(9) / run.calibration.temperature
    assert shown["predicted"] == 2
    assert shown["p_2"] == pytest.approx(1 / (1 + np.exp(-odds)), rel=1e-4)
    assert shown["probability"] == shown["p_2"]
    assert project.predictions().loc[("P1_A1", 1), "probability"] == shown["probability"]


def test_the_stored_table_contains_raw_and_calibrated_probabilities(project: Project) -> None:
    table = held_out_table()
    kept = add_scored_run(project, {"network": table, "forest": table}).held_out()
    np.testing.assert_array_equal(kept[["raw_1", "raw_2"]], table[["p_1", "p_2"]])
    assert (kept["p_1"] != kept["raw_1"]).mean() > 0.6
    np.testing.assert_allclose(kept[["p_1", "p_2"]].sum(axis=1), 1, atol=1e-6)
    pd.testing.assert_frame_equal(project.runs.current.held_out("forest"), table)


def test_merged_classes_are_scored_as_a_single_class(project: Project) -> None:
    table = held_out_table()
    add_scored_run(project, {"network": table})
    project.classes.add("other")
    project.classes.merge("bright", into="dim")
    report = project.evaluate()
    assert report.network.accuracy.value == 1
    assert list(report.network.per_class.index) == ["dim"]


def test_a_run_trained_after_merging_classes_is_scored(project: Project) -> None:
    project.classes.add("other")
    project.classes.merge("other", into="dim")
    add_scored_run(project, {"network": held_out_table()})
    assert list(project.evaluate().network.per_class.index) == ["dim", "bright"]
    assert project.runs.compare()["source"].tolist() == ["cross-validation"]


def test_scores_of_runs_of_all_ages_survive_merging_with_merged_probabilities(project: Project) -> None:
    rng = np.random.default_rng(1)
    p = rng.dirichlet([1.2, 1.0, 1.0], 240).astype(np.float32)
    truth = np.array([rng.choice([1, 2, 3], p=row / row.sum()) for row in p.astype(float)])
    table = held_out_table().drop(columns=["p_1", "p_2"]).assign(truth=truth, predicted=p.argmax(1) + 1)
    table = table.assign(**{f"p_{i + 1}": p[:, i] for i in range(3)})
    project.classes.add("third")
    before = add_scored_run(project, {"network": table, "forest": table})
    calibrated = before.held_out()
    project.classes.merge("third", into="bright")
    add_scored_run(project, {"network": held_out_table()})

    merged_truth = np.where(truth == 1, 1, 2)
    for column, one in (("accuracy", calibrated), ("forest", table)):
        predicted = np.where(one["p_1"] >= one["p_2"] + one["p_3"], 1, 2)
        relabeled = np.where(one["predicted"] == 1, 1, 2)
        assert (predicted != relabeled).any(), "two of three probabilities outweigh the largest one"
        assert project.runs.compare().loc["0001", column] == (predicted == merged_truth).mean()
    assert project.runs.compare()["source"].tolist() == ["cross-validation"] * 2
    assert list(project.evaluate("0001").network.per_class.index) == ["dim", "bright"]
    project.classes.split("third")
    expected = (calibrated["predicted"] == truth).mean()
    assert project.evaluate("0001").network.accuracy.value == expected


def test_without_grouping_columns_the_groups_are_images(project: Project) -> None:
    add_scored_run(project, {"network": held_out_table().assign(image=lambda table: "other " + table["image"])})
    assert project.evaluate().interval_unit == "6 images"


def test_an_out_of_distribution_image_is_reported(project: Project) -> None:
    image, mask = squares(seed=5)
    noise = np.random.default_rng(0).normal(0, 60, image.shape)
    project.add("new", *squares(seed=6))
    project.add("odd", (image + noise).clip(0, 255).astype(np.uint8), mask)
    project.annotations.annotate_each({(name, n): CLASSES[1 - n % 2] for name in KNOWN for n in range(1, 13)})
    run = project.train(epochs=2, steps=2, width=4, depth=1, threads=1, patches={"size": 20, "sampling": 20})
    assert run.left_out is not None
    assert read_runs(project.path / "runs")[run.name].left_out == run.left_out
    assert project.compare_images().empty, "nothing is predicted yet"
    project.predict([*KNOWN, "new"])
    assert "unlike" not in project.status
    project.predict(["odd"])
    assert "1 image looks unlike the annotated images: odd (" in project.status
    table = project.compare_images()
    assert table["warn"].to_dict() == {**dict.fromkeys([*KNOWN, "new"], False), "odd": True}
    assert project.compare_images(["odd"]).equals(table.loc[["odd"]])
    assert table["asked"].eq(12).all()
    assert table.loc["odd", "unlike"] > 0.5
    report = project.evaluate()
    assert report.images.equals(table)
    assert "unlike the annotated images: odd" in str(report) + report._repr_html_()
    assert json.loads(report.to_json())["images"][-1]["warn"] is True
    project.annotate("odd", 1, "dim")
    assert not project.compare_images()["warn"].any()


def test_the_latest_run_is_listed_first_with_its_score(project: Project) -> None:
    add_scored_run(project, {"network": held_out_table(), "forest": held_out_table()})
    add_scored_run(project, {}, note="Not known yet: it was not scored.")
    table = project.runs.compare()
    assert list(table.index) == ["0002", "0001"]
    assert table["current"].tolist() == [True, False]
    row, known = table.loc["0001"], project.evaluate("0001")
    assert row["source"] == "cross-validation"
    assert row["labels"] == 120
    assert row["may_use"] == "everything"
    assert (row["accuracy"], row["low"], row["high"]) == (
        known.network.accuracy.value,
        known.network.accuracy.low,
        known.network.accuracy.high,
    )
    assert row["forest"] == known.forest.accuracy.value
    assert row["balanced"] == known.network.balanced_accuracy.value
    assert pd.isna(table.loc["0002", "accuracy"])
    assert table.loc["0002", "source"] == "no estimate yet"
    assert str(table["finished"].dt.tz) == "UTC"


@pytest.mark.parametrize(
    ("may_use", "description"), [(["size", "brightness"], "brightness, size"), ([], "nothing but shape")]
)
def test_the_allowed_cues_of_a_run_are_described(project: Project, may_use: list[str], description: str) -> None:
    run = add_scored_run(project, {})
    settings = TrainingSettings(may_use=may_use).model_dump(mode="json")
    project.runs.update(replace(run, settings=settings))
    assert project.runs.compare()["may_use"].tolist() == [description]


def test_a_project_without_runs_has_an_empty_table(project: Project) -> None:
    assert project.runs.compare().empty
    assert "accuracy" in project.runs.compare()


@pytest.mark.parametrize("architecture", ["small_cnn", "forest", "live"])
def test_a_run_stores_all_inputs_of_its_training(project: Project, architecture: str) -> None:
    project.annotations.annotate_each({("P1_A1", n): CLASSES[1 - n % 2] for n in range(1, 9)})
    changes = {"architecture": architecture, "epochs": 2, "steps": 2, "width": 2, "trees": 5, "seed": 11, "threads": 1}
    run = project.train(**changes)
    assert {name: run.settings[name] for name in changes} == changes
    assert run.settings["patches"]["size"] != "auto", "the patches are those that were cut"
    assert run.versions["python"] == platform.python_version()
    assert {name: run.versions[name] for name in ("torch", "numpy", "scikit-learn")} == {
        name: version(name) for name in ("torch", "numpy", "scikit-learn")
    }
    assert run.labels == {"dim": 4, "bright": 4}
    assert len(run.annotations) == 16
    assert [set(entry) for entry in run.history] == [{"epoch", "loss", "score"}] * (
        2 if architecture == "small_cnn" else 1
    )
    kept = json.loads((run.path / "run.json").read_text())
    assert {"settings", "classes", "labels", "annotations", "history", "seconds", "calibration"} <= set(kept)
