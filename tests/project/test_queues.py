"""Queues of a project: they resume, never repeat an object, and follow mask changes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest

from svetlana_jupyter.errors import InputError, ProjectError
from tests.project.conftest import reopen, squares

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

KINDS = [{"kind": "random", "seed": 3}, {"kind": "image"}, {"kind": "near", "near": ("P1_A1", 6)}]


def ids(queue, count: int = 100) -> list[tuple[str, int]]:
    candidates = iter(lambda: queue.next(), None)
    return [candidate.id for candidate, _ in zip(candidates, range(count))]


@pytest.mark.parametrize("kind", KINDS)
def test_a_queue_resumes_and_never_repeats_an_object(project: Project, kind) -> None:
    complete = ids(project.queue(**kind))
    first = ids(project.queue(**kind), 5)
    for image, label in first:
        project.annotate(image, label, "dim")
    again = reopen(project)
    assert first + ids(again.queue(**kind)) == complete
    assert len(set(complete)) == len(complete)
    assert len(complete) == (11 if "near" in kind else 36)


def test_near_objects_are_ordered_by_distance_with_the_reason(project: Project) -> None:
    first = project.queue("near", near=("P1_A1", 6)).next()
    assert first.image == "P1_A1"
    assert first.label in (2, 5, 7, 10)
    assert first.reason == "24 px from object 6"


def test_images_alternate_in_the_queue(project: Project) -> None:
    queue = project.queue("image", images=["P2_A1", "P1_A1"])
    assert [image for image, _ in ids(queue)] == ["P2_A1"] * 12 + ["P1_A1"] * 12


def test_a_queue_of_near_objects_needs_a_reference_object(project: Project) -> None:
    with pytest.raises(InputError, match="requires near="):
        project.queue("near")
    with pytest.raises(InputError, match="requires near="):
        project.queue("random", near=("P1_A1", 6))
    for kind in ("near", "similar"):
        with pytest.raises(InputError, match="'P9'"):
            project.queue(kind, near=("P9", 6))


def test_a_queue_continues_with_the_objects_of_a_new_mask(project: Project) -> None:
    queue = project.queue("image", images=["P1_A1"])
    ids(queue, 3)
    mask = squares()[1].astype(np.int32)
    project.replace_mask("P1_A1", np.where(mask > 4, mask + 100, 0))
    assert queue.previous() is None
    assert ids(queue) == [("P1_A1", label) for label in range(105, 113)]


def test_peeking_keeps_the_order_and_skips_objects_labeled_meanwhile(project):
    complete = ids(project.queue())
    queue = project.queue()
    assert [candidate.id for candidate in queue.peek(3)] == complete[:3]
    assert queue.next().id == complete[0]
    assert [candidate.id for candidate in queue.peek(3)] == complete[1:4]
    project.annotate(*complete[1], project.classes.names[0])
    assert queue.next().id == complete[2]
    queue.previous()
    assert queue.peek(2)[0].id == complete[2]
    assert ids(queue)[1:] == complete[3:]
    assert queue.peek(2) == []


def labeled(project: Project, labels: range, image: str = "P1_A1") -> None:
    for label in labels:
        project.annotate(image, label, "bright" if label % 2 == 0 else "dim")


def test_every_fourth_object_of_the_useful_queue_is_the_next_random_draw(project):
    labeled(project, range(1, 5))
    project.live.update()
    random = [candidate.id for candidate in project.queue("random").coming(100)]
    queue = project.queue("useful")
    listed = [queue.next() for _ in range(8)]
    drawn = [candidate.id for candidate in listed if candidate.reason == "drawn at random"]
    assert drawn == sorted(random[:2], key=[candidate.id for candidate in listed].index)
    assert all(", and like " in candidate.reason for candidate in listed if candidate.id not in drawn)
    for candidate in listed:
        project.annotate(*candidate.id, "dim", source="panel")
    assert set(drawn) <= project.annotations.drawn_objects()
    chosen = {candidate.id for candidate in listed} - set(drawn)
    before = set(random[: random.index(drawn[-1])]) if drawn else set()
    assert project.annotations.drawn_objects() & chosen <= before
    rest = ids(queue)
    assert len({*rest, *(candidate.id for candidate in listed)}) == len(rest) + 8 == 32


@pytest.mark.parametrize("labeled_at_once", [True, False])
def test_drawn_objects_of_the_useful_queue_are_the_first_of_a_random_order(project, labeled_at_once):
    order = [candidate.id for candidate in project.queue("random").coming(100)]
    labeled(project, range(1, 5))
    project.live.update()
    queue = project.queue("useful")
    listed = []
    for candidate in iter(queue.next, None):
        listed.append(candidate)
        if labeled_at_once:
            project.annotate(*candidate.id, "dim", source="panel")
    for candidate in listed:
        project.annotate(*candidate.id, "dim", source="panel")
    drawn = project.annotations.drawn_objects()
    assert drawn == set(order[: len(drawn)])
    assert len(drawn) > sum(candidate.reason == "drawn at random" for candidate in listed) >= 8


def test_objects_that_were_chosen_ahead_count_as_drawn_only_after_the_draws_before_them(large):
    order = [candidate.id for candidate in large.queue("random").coming(100)]
    labeled(large, range(1, 5))
    large.live.update()
    queue = large.queue("useful")
    queue.coming(64)  # as a panel that loads images early
    n_drawn = 0
    while n_drawn < 6:
        candidate = queue.next()
        large.annotate(*candidate.id, "dim", source="panel")
        n_drawn += candidate.reason == "drawn at random"
        counted = large.annotations.drawn_objects()
        last = max((order.index(each) for each in counted), default=0)
        unlabeled = [each for each in order[:last] if each not in large.annotations.labels]
        assert len(unlabeled) <= 1  # the two draws of a list are grouped by image


def test_without_features_the_useful_queue_is_the_random_one(project):
    assert ids(project.queue("useful"), 4) == ids(project.queue("random"), 4)


def test_objects_of_a_list_are_grouped_by_image(project):
    labeled(project, range(1, 5))
    project.live.update()
    images = [image for image, _ in ids(project.queue("useful"), 8)]
    assert sum(a != b for a, b in itertools.pairwise(images)) == len(set(images)) - 1


def test_useful_objects_have_no_label_and_are_not_of_the_test_set(project):
    labeled(project, range(1, 5))
    project.test_set.draw(20)
    project.live.update()
    found = ids(project.queue("useful"))
    assert not set(found) & {*project.test_set.objects, *project.annotations.labels}
    assert len(found) == len({*found}) == 36 - len({*project.test_set.objects, *project.annotations.labels})


def test_suspected_label_errors_are_labeled_objects(project):
    labeled(project, range(1, 13))
    project.annotate("P1_A1", 5, "bright")
    project.live.update()
    assert project.queue("suspect").next()[:2] == ("P1_A1", 5)
    project.annotate("P1_A1", 5, "dim")
    assert ("P1_A1", 5) not in ids(project.queue("suspect"))


def test_labels_are_not_compared_with_predictions_of_the_mask_before(project):
    labeled(project, range(1, 13))
    project.annotate("P1_A1", 5, "bright")
    project.live.update()
    mask = squares(seed=1)[1]
    project.replace_mask("P1_A1", np.where(mask == 12, 0, mask))
    assert project.labels().loc[("P1_A1", 5), "class"] == "bright"
    finished = project.queue("suspect")
    assert finished.next() is None
    assert finished.end == "No label looks wrong."
    project.live.update()
    assert project.queue("suspect").next()[:2] == ("P1_A1", 5)


def test_queues_of_predictions_follow_the_chosen_classes(project):
    labeled(project, range(1, 9))
    project.live.update()
    table = project.predictions()
    found = ids(project.queue("predicted", classes=["dim"]))
    expected = table[(table["predicted"] == "dim") & table["annotation"].isna()]
    assert set(found) == set(expected.index)
    assert len(ids(project.queue("confused", classes=["dim", "bright"]))) == 28
    assert len(ids(project.queue("rare"))) == 28
    assert len(ids(project.queue("diverse"))) == len(ids(project.queue("unlike"))) == 28


def test_two_runs_that_agree_have_no_disagreement(project):
    for image in project.images:
        labeled(project, range(1, 11), image)
    project.train(preset="forest")
    project.predict()
    project.live.update()
    assert ids(project.queue("disagreement")) == []


@pytest.mark.parametrize("kind", ["rare", "suspect"])
def test_a_queue_that_needs_predictions_says_so(project, kind):
    with pytest.raises(ProjectError, match=r"project.live.update\(\)"):
        project.queue(kind).next()


def test_a_queue_needs_as_many_classes_as_it_compares(project):
    with pytest.raises(InputError, match=r"needs 2 different classes, got \['dim'\]. Pass them, for example"):
        project.queue("confused", classes=["dim"])
    with pytest.raises(InputError, match="Leave out classes"):
        project.queue("random", classes=["dim"])
    with pytest.raises(InputError, match="no class"):
        project.queue("predicted", classes=["other"])


def test_similar_objects_come_in_the_order_of_the_distance_of_their_features(project):
    labeled(project, range(1, 5))
    project.live.update()
    matrix = project.features.matrix()
    values = {
        (name, label): row
        for name, image in matrix.images.items()
        for label, row in zip(image.labels, image.read(slice(None)))
    }
    distance = {key: np.linalg.norm(row - values["P1_A1", 2]) for key, row in values.items() if key != ("P1_A1", 2)}
    table = project.features.similar("P1_A1", 2, 10)
    expected = sorted(distance, key=distance.__getitem__)
    assert table.index.tolist() == expected[:10]
    np.testing.assert_allclose(table["distance"], [distance[key] for key in expected[:10]], rtol=1e-3)
    queued = ids(project.queue("similar", near=("P1_A1", 2)))
    assert queued == [key for key in expected if key not in project.annotations.labels]


def test_similar_objects_hide_the_test_set_until_it_is_annotated(project):
    labeled(project, range(1, 5))
    project.live.update()
    nearest = project.features.similar("P1_A1", 2).index
    first, *others = project.test_set.draw(20).index
    expected = [each for each in nearest if each not in {first, *others}]
    assert project.features.similar("P1_A1", 2).index.tolist() == expected
    assert project.features.similar("P1_A1", 2, 3).index.tolist() == expected[:3]
    with pytest.raises(ProjectError, match="belongs to the test set, so similar objects are hidden"):
        project.features.similar(*first)
    project.annotate(*first, "dim")
    assert len(project.features.similar("P1_A1", 2)) == len(expected) + 1
    assert not project.features.similar(*first).index.isin(others).any()


def test_similar_objects_need_features(project):
    with pytest.raises(ProjectError, match="has no features yet"):
        project.queue("similar", near=("P1_A1", 2)).next()
