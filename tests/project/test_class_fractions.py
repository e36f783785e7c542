"""Estimated fractions: which labels and probabilities they use, their columns, and why an interval is missing.

The numbers are compared with `FractionEstimator`, called with arrays that the test collects itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from svetlana_jupyter.core.groups import sampling_units, unit_columns
from svetlana_jupyter.core.stats.fractions import CountedObjects, DrawnLabels, FractionEstimator
from svetlana_jupyter.project.class_fractions import ClassFractions
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.project.storage import write_parquet
from tests.project.conftest import CLASSES, squares
from tests.project.test_evaluation import add_scored_run, held_out_table

if TYPE_CHECKING:
    from svetlana_jupyter.project.runs import Run

Ids = list[tuple[str, int]]


def probability(image: str, label: int, salt: int = 0) -> float:
    """Return a made-up probability of "bright"; even labels are bright."""
    noise = np.random.default_rng([sum(map(ord, image)), label, salt]).normal()
    return float(1 / (1 + np.exp(-(noise + (1.5 if label % 2 == 0 else -1.5)))))


def truth(label: int) -> str:
    return CLASSES[1 - label % 2]


def draw(project: Project, count: int) -> Ids:
    """Label the first objects of the random queue as a script would."""
    queue = project.queue()
    ids = [queue.next().id for _ in range(count)]
    for image, label in ids:
        project.annotate(image, label, truth(label))
    return ids


def add_run(project: Project, trained: Ids, predicted: list[str] | None = None) -> Run:
    """Add a run with made-up predictions, trained on these objects, which have other held-out probabilities."""
    p = np.array([probability(image, label, 1) for image, label in trained])
    table = pd.DataFrame(trained, columns=["image", "object"]).assign(
        group=[image for image, _ in trained],
        fold=np.arange(len(trained)) % 4 + 1,
        truth=[2 - label % 2 for _, label in trained],
        predicted=1 + (p > 0.5),
        p_1=1 - p,
        p_2=p,
    )
    run = add_scored_run(project, {"network": table})
    labels = table[["image", "object"]].assign(class_id=table["truth"], mask=0)
    write_parquet(run.path / "labels.parquet", labels)
    for image in predicted or list(project.images):
        objects = project.objects(image).index
        q = np.array([probability(image, label) for label in objects])
        own = pd.DataFrame({"predicted": 1 + (q > 0.5), "probability": np.maximum(q, 1 - q)}, objects)
        run.write_predictions(image, own.assign(p_1=1 - q, p_2=q))
    project.runs.clear_cache()
    project.predictions_version += 1
    return run


def labels_of(held_out: Ids, own: Ids = (), unit=lambda image: image) -> DrawnLabels:
    p = [probability(*each, 1) for each in held_out] + [probability(*each) for each in own]
    everything = [*held_out, *own]
    return DrawnLabels(
        np.array([[1 - q, q] for q in p]),
        np.array([1 - label % 2 for _, label in everything]),
        np.array([unit(image) for image, _ in everything]),
    )


def objects_of(images: list[str], annotated: Ids, unit=lambda image: image, drawn: Ids = ()) -> CountedObjects:
    ids = [(image, label) for image in images for label in range(1, 13)]
    p = np.array([probability(*each) for each in ids])
    annotation = [1 - label % 2 if (image, label) in set(annotated) else -1 for image, label in ids]
    unit = np.array([unit(image) for image, _ in ids])
    return CountedObjects(np.stack([1 - p, p], axis=1), np.array(annotation), unit, np.array([i in drawn for i in ids]))


def assert_estimates(counts: pd.DataFrame, labels: DrawnLabels, *groups: CountedObjects) -> None:
    """Compare the counts of each group with those of the estimator."""
    for number, expected in enumerate(FractionEstimator(labels).estimate(groups)):
        rows = counts.iloc[2 * number : 2 * number + 2]
        np.testing.assert_allclose(rows["fraction"], expected.fraction)
        np.testing.assert_allclose(rows["estimate"], expected.fraction * rows["total"])
        np.testing.assert_allclose(rows[["low", "high"]], np.stack([expected.low, expected.high], axis=1))
        assert set(rows["method"]) == {expected.method} == {"corrected"}
        assert rows["note"].tolist() == expected.note
        assert (rows["low"] < rows["high"]).all()


def test_drawn_training_labels_use_raw_held_out_predictions_and_counted_objects_raw_own_ones(large: Project) -> None:
    drawn = draw(large, 52)
    lassoed = [each for each in [("more0", label) for label in range(1, 13)] if each not in drawn]
    large.annotations.annotate_each({each: truth(each[1]) for each in lassoed}, source="lasso")
    run = add_run(large, drawn + lassoed)
    assert not run.calibration.is_identity, "raw and calibrated probabilities differ"
    counts = large.counts("image")
    unit = {name: f"plate={entry.groups['plate']} well={entry.groups['well']}" for name, entry in large.images.items()}
    counted = [image for image in sorted(large.images) if image != "more0"]
    groups = [objects_of([image], drawn + lassoed, unit.get, drawn) for image in counted]
    labels = labels_of(drawn, unit=unit.get)
    assert_estimates(counts[counts["image"] != "more0"], labels, *groups)
    everything = objects_of(list(large.images), drawn + lassoed, unit.get, drawn)
    assert_estimates(large.counts(), labels, everything)
    table = large.predictions()
    for _, row in counts.iterrows():
        assert row["count"] == (table.loc[row["image"], "class"] == row["class"]).sum()


@pytest.mark.parametrize("per", [None, "plate"])
def test_labels_that_the_run_was_not_trained_on_use_its_own_predictions(large: Project, per: str | None) -> None:
    drawn = draw(large, 30)
    large.test_set.draw(8 if per else 24, per, seed=1)  # there are three plates
    add_run(large, drawn[:12])
    tested = large.test_set.objects[:20]
    large.annotations.annotate_each({each: truth(each.label) for each in tested})
    counts = large.counts()
    assert counts["total"].iloc[0] == 84 - 4, "unannotated objects of the test set stay hidden"
    images = list(large.images)
    estimator = FractionEstimator(labels_of(drawn[:12], drawn[12:] + tested))
    everything = objects_of(images, drawn + tested, drawn=[] if per else drawn + tested)
    hidden = set(large.test_set.objects[20:])
    chosen = np.array([(image, label) not in hidden for image in images for label in range(1, 13)])
    (expected,) = estimator.estimate([CountedObjects(*(part[chosen] for part in everything))])
    np.testing.assert_allclose(counts["fraction"], expected.fraction)


@pytest.mark.parametrize("change", ["replaced mask", "continued training"])
def test_labels_whose_predictions_are_not_held_out_are_not_used(large: Project, change: str) -> None:
    drawn = draw(large, 40)
    run = add_run(large, drawn)
    assert large.counts()["low"].notna().all()
    if change == "replaced mask":
        for image in list(large.images)[:6]:
            large.replace_mask(image, squares()[1].astype(np.int32))
    else:
        (run.path.parent / "0000").mkdir()
        large.runs.update(replace(run, settings=run.settings | {"start_from": "0000"}))
    counts = large.counts()
    assert counts["low"].isna().all()
    assert "Call project." in counts["note"].iloc[0]


def test_without_drawn_labels_counts_have_no_interval_and_a_note(large: Project) -> None:
    ids = [(image, label) for image in large.images for label in range(1, 7)]
    large.annotations.annotate_each({each: truth(each[1]) for each in ids}, source="lasso")
    add_run(large, ids)
    counts = large.counts("plate")
    assert counts[["low", "high"]].isna().all(axis=None)
    assert set(counts["method"]) == {"predicted"}
    np.testing.assert_allclose(counts["fraction"], counts["count"] / counts["total"])
    np.testing.assert_allclose(counts["estimate"], counts["count"])
    (note,) = counts["note"].unique()
    assert note == (
        "No interval: an interval needs 20 labels of objects drawn at random; there are 0. Label objects of "
        'project.queue("random"), or of a test set from project.test_set.draw(100).'
    )


def test_labels_without_held_out_predictions_call_for_a_training_or_say_why_there_are_none(large: Project) -> None:
    run = add_run(large, [("more0", 1), ("more0", 2)])
    draw(large, 30)
    run = replace(run, settings=run.settings | {"start_from": "0001"})
    large.runs.update(run)
    (note,) = large.counts()["note"].unique()
    assert note.endswith("of 30. Call project.train(), then project.predict()."), note

    (run.path / "held_out_network.parquet").unlink()
    large.runs.update(replace(run, note="No score yet: bright has 4."))
    (note,) = large.counts()["note"].unique()
    more = "Label more objects, then call project.train() and project.predict()."
    assert note.endswith(f"of 30. No score yet: bright has 4. {more}"), note


def test_labels_that_were_drawn_elsewhere_count_when_the_source_says_so(large: Project) -> None:
    ids = [(image, label) for image in large.images for label in range(1, 7)]
    for image, label in ids:
        large.annotate(image, label, truth(label), source="random")
    add_run(large, ids)
    assert large.counts()["low"].notna().all()


def test_a_fully_annotated_group_has_no_error_of_the_classifier(large: Project) -> None:
    drawn = draw(large, 30)
    rest = [(image, label) for image in ("P1_A1", "P1_A2") for label in range(1, 13)]
    large.annotations.annotate_each({each: truth(each[1]) for each in rest}, source="lasso")
    add_run(large, drawn)
    counts = large.counts("plate").set_index(["plate", "class"])
    assert counts.loc["P1", "method"].eq("annotated").all()
    assert counts.loc["P1", "estimate"].tolist() == counts.loc["P1", "count"].tolist() == [12, 12]
    assert counts.loc["P3", "method"].eq("corrected").all()
    assert counts.loc["P3", "low"].notna().all()


def test_an_image_that_is_not_predicted_leaves_its_group_without_interval(large: Project) -> None:
    drawn = draw(large, 40)
    add_run(large, drawn, predicted=[image for image in large.images if image != "more1"])
    counts = large.counts("plate").set_index("plate")
    assert counts.loc["P1", "low"].notna().all()
    assert counts.loc["P3", "low"].isna().all()
    assert counts.loc["P3", "note"].unique().tolist() == [
        "No interval: these images are not predicted yet: more1. Call project.predict()."
    ]


def test_a_project_without_run_says_what_its_fractions_are(large: Project) -> None:
    large.annotate("P1_A1", range(1, 5), "bright")
    counts = large.counts("image").set_index("image")
    assert counts.loc["P1_A1", "fraction"].tolist() == [0, 1]
    assert counts.loc["P1_A1", "low"].isna().all()
    assert "not predicted yet: P1_A1" in counts.loc["P1_A1", "note"].iloc[0]
    assert counts.loc["more0", ["fraction", "estimate", "low"]].isna().all(axis=None)
    assert counts.loc["more0", ["method", "note"]].eq("").all(axis=None)


def test_a_single_image_and_a_class_without_labels(large: Project) -> None:
    large.classes.add("torn")
    single = Project(large.path.with_name("single"), classes=[*CLASSES, "torn"], annotator="ann")
    single.add("only", *squares(count=60, seed=4), axes="yx")
    queue = single.queue()
    drawn = [queue.next().id for _ in range(30)]
    for image, label in drawn:
        single.annotate(image, label, truth(label))
    add_run(single, drawn)
    counts = single.counts().set_index("class")
    assert counts["fraction"].sum() == pytest.approx(1)
    assert counts.loc["torn", ["count", "fraction", "estimate"]].eq(0).all()
    assert counts.loc["torn", ["low", "high"]].isna().all()
    assert counts.loc["torn", "note"] == "No object is labeled with this class, and the run does not predict it."
    known = counts.loc[CLASSES]
    assert ((known["low"] >= 0) & (known["low"] < known["high"]) & (known["high"] <= 1)).all()


def test_an_unused_class_does_not_change_the_estimates_of_the_others(large: Project) -> None:
    add_run(large, draw(large, 40))
    before = large.counts()
    large.classes.add("torn")
    columns = ["class", "count", "estimate", "fraction", "low", "high", "method", "note"]
    pd.testing.assert_frame_equal(large.counts()[columns].iloc[:2], before[columns])


def test_a_labeled_class_that_the_run_does_not_know_calls_for_a_training(large: Project) -> None:
    drawn = draw(large, 40)
    add_run(large, drawn)
    large.classes.add("torn")
    large.annotate(*drawn[0], "torn")
    counts = large.counts().set_index("class")
    assert counts.loc["torn", ["count", "estimate"]].tolist() == [1, 1]
    assert (counts["estimate"] == counts["count"]).all()
    assert counts["low"].isna().all()
    assert counts["note"].str.contains("does not know classes that are labeled: torn. Call project.tra").all()


def test_probabilities_of_merged_classes_are_added(large: Project) -> None:
    drawn = draw(large, 40)
    run = add_run(large, drawn)
    expected = large.counts()
    large.classes.add("other")
    for image in large.images:  # the same predictions, with the class "bright" divided into two
        table = run.read_predictions(image)
        table = table.assign(p_3=0.5 * table["p_2"], p_2=0.5 * table["p_2"])
        run.write_predictions(image, table)
    held_out = pd.read_parquet(run.path / "held_out_network.parquet")
    raw = "raw_2" if "raw_2" in held_out else "p_2"
    held_out[raw] /= 2
    write_parquet(run.path / "held_out_network.parquet", held_out.assign(**{raw.replace("2", "3"): held_out[raw]}))
    large.runs.update(replace(run, classes={**run.classes, 3: "other"}))
    large.runs.clear_cache()
    large.classes.merge("other", "bright")
    columns = ["fraction", "low", "high"]
    np.testing.assert_allclose(large.counts()[columns], expected[columns], atol=1e-4)


def test_the_estimator_is_built_once_until_an_annotation_changes(
    large: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = draw(large, 40)
    add_run(large, drawn)
    first = large.counts("plate")
    monkeypatch.setattr("svetlana_jupyter.project.class_fractions.FractionEstimator", None)
    pd.testing.assert_frame_equal(large.counts("plate"), first)
    large.annotate("more0", 1, "dim")
    with pytest.raises(TypeError):
        large.counts("plate")


def test_sites_of_a_well_are_one_unit_and_images_of_a_treatment_are_units() -> None:
    images = {
        "a1": {"drug": "x", "well": "A", "site": "1"},
        "a2": {"drug": "x", "well": "A", "site": "2"},
        "b1": {"drug": "x", "well": "B", "site": "1"},
    }
    columns = ["drug", "well", "site"]
    expected = {"a1": "drug=x well=A", "a2": "drug=x well=A", "b1": "drug=x well=B"}
    assert sampling_units(images, unit_columns(columns)) == expected
    assert sampling_units(images, unit_columns(columns, ["drug"])) == expected
    assert sampling_units(images, unit_columns(columns, ["drug", "well"])) == expected
    assert sampling_units(images, unit_columns(["drug"], ["drug"])) == {"a1": "a1", "a2": "a2", "b1": "b1"}
    assert sampling_units(images, unit_columns(["site"])) == {"a1": "a1", "a2": "a2", "b1": "b1"}
    assert unit_columns(["Well ID", "Field_of_View", "Time point", "z"]) == ["Well ID"]
    assert sampling_units({"a": {"well": "A"}, "b": {}}, ["well"]) == {"a": "well=A", "b": "b"}


def test_units_of_a_condition_are_its_wells(large: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    add_run(large, draw(large, 40))
    seen: list[set[str]] = []
    estimate = ClassFractions.estimate
    monkeypatch.setattr(
        ClassFractions,
        "estimate",
        lambda self, *parts: (seen.append(set(parts[2].values())), estimate(self, *parts))[1],
    )
    doses = pd.DataFrame({"well": ["A1", "A2", *(f"B{i}" for i in range(4))], "dose": [1, 1, 2, 2, 2, 2]})
    large.counts("dose", doses)
    assert seen[-1] == {f"plate={p} well={w}" for p, w in (("P1", "A1"), ("P1", "A2"), ("P2", "A1"))} | {
        f"plate=P3 well=B{i}" for i in range(4)
    }
    large.counts("image")
    assert len(seen[-1]) == 7
    large.plot.counts("dose", doses, replicates="dose")
    assert seen[-1] == {"dose=1", "dose=2"}


def test_held_out_predictions_of_unknown_objects_are_ignored(large: Project) -> None:
    draw(large, 40)
    add_scored_run(large, {"network": held_out_table()})
    assert large.counts()["low"].isna().all()
