"""Test set: drawn at random, excluded from training, with predictions hidden until annotated."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chisquare
from sklearn.metrics import accuracy_score

from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.test_set import draw_sample
from tests.project.conftest import CLASSES, reopen, squares
from tests.project.test_evaluation import add_scored_run, held_out_table

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.project.runs import Run

N = 24


def truth(label: int) -> str:
    return CLASSES[1 - label % 2]


def annotate_test_set(project: Project, count: int = N) -> list[tuple[str, int]]:
    ids = project.test_set.objects[:count]
    project.annotations.annotate_each({object_id: truth(object_id.label) for object_id in ids})
    return ids


def add_predicted_run(project: Project, wrong: int = 0) -> Run:
    """Add a run whose predictions are correct except for the first ``wrong`` objects of the test set."""
    run = add_scored_run(project, {"network": held_out_table()})
    missed = set(project.test_set.objects[:wrong])
    for image in project.images:
        objects = project.objects(image).index
        bright = np.array([(label % 2 == 0) != ((image, label) in missed) for label in objects])
        p = np.where(bright, 0.8, 0.2)
        table = pd.DataFrame({"predicted": 1 + bright, "probability": 0.8, "p_1": 1 - p, "p_2": p}, objects)
        run.write_predictions(image, table)
    project.runs.clear_cache()
    return run


def test_every_object_is_drawn_equally_often_without_replacement() -> None:
    pools = [[("a", 0, np.array([3, 5])), ("b", 1, np.array([1, 2, 9]))]]
    counts: Counter = Counter()
    for seed in range(1500):
        sample = draw_sample(pools, 2, (), seed)
        assert len(set(sample.object_ids)) == 2
        assert sample.stands_for == (2.5, 2.5)
        counts.update(sample.object_ids)
    assert set(counts) == {("a", 3, 0), ("a", 5, 0), ("b", 1, 1), ("b", 2, 1), ("b", 9, 1)}
    assert chisquare(list(counts.values())).pvalue > 0.001


def test_objects_are_weighted_by_group_size_and_sample_size() -> None:
    pools = [[("a", 0, np.arange(1, 101))], [("b", 0, np.arange(1, 4))]]
    sample = draw_sample(pools, 10, ("well",), 0)
    weights = {
        image: {weight for object_id, weight in zip(sample.object_ids, sample.stands_for) if object_id.image == image}
        for image in "ab"
    }
    assert Counter(object_id.image for object_id in sample.object_ids) == {"a": 10, "b": 3}
    assert weights == {"a": {10.0}, "b": {1.0}}
    assert sample.object_ids[:10] != tuple(sorted(sample.object_ids)[:10]), "the order is random too"


def test_a_test_set_is_stored_and_drawn_once(project: Project) -> None:
    project.annotate("P1_A1", [1, 2, 3], "dim")
    table = project.test_set.draw(N, seed=3)
    assert len(table) == N
    assert table["stands_for"].eq(33 / N).all()
    assert not table["action"].any()
    assert not {("P1_A1", 1), ("P1_A1", 2), ("P1_A1", 3)} & set(project.test_set.objects), "they were annotated before"
    again = reopen(project)
    pd.testing.assert_frame_equal(again.test_set.table(), table)
    pd.testing.assert_frame_equal(again.test_set.draw(N, seed=3), table)
    with pytest.raises(ProjectError, match="exists already"):
        again.test_set.draw(N, seed=4)


def test_a_test_set_can_be_stratified_by_well(project: Project) -> None:
    table = project.test_set.draw(10, per=["plate", "well"])
    assert table.groupby(level="image").size().to_dict() == dict.fromkeys(project.images, 10)
    assert table["stands_for"].eq(1.2).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "cannot have n=0 objects"),
        ({"n": 5}, "is too small"),
        ({"n": 9, "per": "patient"}, "no grouping column 'patient'"),
    ],
)
def test_an_invalid_draw_raises_an_error_and_stores_nothing(project: Project, arguments, message: str) -> None:
    with pytest.raises(InputError, match=message):
        project.test_set.draw(**arguments)
    assert project.test_set.table().empty
    assert not (project.path / "test_set.csv").exists()


def test_annotations_of_the_test_set_are_excluded_from_training(project: Project) -> None:
    project.test_set.draw(20, seed=3)
    annotate_test_set(project)
    assert "nothing is annotated" in project.readiness()
    assert project.annotations.class_counts().sum() == 20
    others = [(image, label) for image in project.images for label in range(1, 13)]
    others = [object_id for object_id in others if object_id not in project.test_set]
    project.annotations.annotate_each({object_id: truth(object_id[1]) for object_id in others})
    run = project.train(architecture="forest", trees=5)
    assert run.labels == {name: sum(truth(label) == name for _, label in others) for name in CLASSES}
    project.evaluate()
    held = run.held_out()
    assert held is not None
    assert set(zip(held["image"], held["object"])) == set(others)
    with_test = run.annotations
    project.annotations.erase_each(project.test_set.objects)
    assert project.train(architecture="forest", trees=5).annotations == with_test, "they were not among what it saw"


def test_predictions_of_the_test_set_are_hidden_until_annotated(project: Project) -> None:
    project.test_set.draw(N)
    add_predicted_run(project)
    first, second = project.test_set.objects[:2]
    shown = project.predictions()
    assert shown.loc[[*project.test_set.objects], ["predicted", "class", "probability", "p_dim"]].isna().all(axis=None)
    assert shown["predicted"].notna().sum() == 36 - N
    assert first.label not in project.probabilities(first.image).index
    assert not {candidate.id for candidate in project.queue("uncertain").peek(100)} & set(project.test_set.objects)
    assert project.counts()["left_out"].iloc[0] == N
    with pytest.raises(ProjectError, match="belongs to the test set"):
        project.explain(*first)
    project.annotate(*first, "dim")
    project.flag(*second, "skip")
    assert project.predictions().loc[first, "predicted"] == truth(first.label)
    assert pd.isna(project.predictions().loc[second, "predicted"])


def test_only_the_test_queue_contains_the_test_set(project: Project) -> None:
    with pytest.raises(ProjectError, match="no test set yet"):
        project.queue("test")
    project.test_set.draw(N)
    queue = project.queue("test")
    assert [queue.next().id for _ in range(3)] == project.test_set.objects[:3]
    project.annotate(*project.test_set.objects[0], "dim")
    assert project.queue("test").next().id == project.test_set.objects[1], "it resumes"
    for kind in ({"kind": "random"}, {"kind": "image"}, {"kind": "near", "near": project.test_set.objects[0]}):
        queued = [candidate.id for candidate in iter(project.queue(**kind).next, None)]
        assert queued
        assert not set(queued) & set(project.test_set.objects)


def test_a_run_is_scored_on_the_test_set_once_it_is_annotated(project: Project) -> None:
    project.test_set.draw(N)
    add_predicted_run(project, wrong=3)
    annotate_test_set(project, 19)
    early = project.evaluate()
    assert early.source == "cross-validation"
    assert "20 of its 24 objects are annotated; 19 are" in early.text
    annotate_test_set(project)
    report = project.evaluate()
    assert report.source == "test set"
    assert report.forest is None
    true_classes = [truth(label) for _, label in project.test_set.objects]
    guess = project.predictions().loc[[*project.test_set.objects], "predicted"]
    assert report.network.accuracy.value == pytest.approx(accuracy_score(true_classes, guess)) == pytest.approx(21 / 24)
    assert set(report.network.by_group.index) == {"plate=P1 well=A1", "plate=P1 well=A2", "plate=P2 well=A1"}
    assert report.reliability.error != report.uncalibrated.error
    assert "annotated without seeing" in str(report)


def test_flagged_test_objects_count_as_annotated_and_are_reported(project: Project) -> None:
    project.test_set.draw(N)
    add_predicted_run(project)
    annotate_test_set(project)
    project.annotations.flag_each(project.test_set.objects[:2], "bad_segmentation")
    report = project.evaluate()
    assert report.source == "test set"
    assert report.network.accuracy.n == 22
    assert report.left_out["bad_segmentation"] == 2


def test_scores_weight_objects_by_their_sampling_weight(project: Project) -> None:
    project.add("large", *squares(count=120, seed=9), groups={"plate": "P3", "well": "A1"})
    project.test_set.draw(8, per="image")
    add_predicted_run(project)
    annotate_test_set(project, 99)
    wrong = [object_id for object_id in project.test_set.objects if object_id.image == "large"][:4]
    run = project.runs.current
    table = run.read_predictions("large")
    for object_id in wrong:
        table.loc[object_id.label, ["p_1", "p_2"]] = table.loc[object_id.label, ["p_2", "p_1"]].to_numpy(copy=True)
        table.loc[object_id.label, "predicted"] = 3 - table.loc[object_id.label, "predicted"]
    run.write_predictions("large", table)
    project.runs.clear_cache()
    assert project.evaluate().network.accuracy.value == pytest.approx(1 - 4 * (120 / 8) / (120 + 36))


def test_the_error_for_an_unpredicted_test_set_says_what_to_do(project: Project) -> None:
    project.test_set.draw(N)
    add_scored_run(project, {"network": held_out_table()})
    annotate_test_set(project)
    report = project.evaluate()
    assert report.source == "cross-validation"
    assert "predict all images" in report.text


def test_a_class_added_after_training_counts_as_missed(project: Project) -> None:
    project.test_set.draw(N)
    add_predicted_run(project)
    annotate_test_set(project)
    project.classes.add("dividing")
    project.annotate(*project.test_set.objects[0], "dividing")
    report = project.evaluate()
    assert report.network.per_class.loc["dividing", "recall"] == 0
    assert report.network.accuracy.value == 23 / 24


def test_the_test_set_follows_its_objects_to_a_new_mask(project: Project) -> None:
    project.test_set.draw(N)
    before = project.test_set.objects
    project.replace_mask("P1_A1", squares()[1].astype(np.int32) + 100)
    assert project.test_set.objects == [(image, label + 100 if image == "P1_A1" else label) for image, label in before]


def test_an_invalid_test_set_file_is_refused(project: Project) -> None:
    (project.path / "test_set.csv").write_text("drawn,n\n2026,ten\n")
    with pytest.raises(ProjectError, match="is not a valid test set"):
        project.test_set.table()
