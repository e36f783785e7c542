"""Batched prediction with a reading thread compared with prediction of single objects."""

from __future__ import annotations

import threading
import time
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from svetlana_jupyter.core.io import chunks as blocks
from svetlana_jupyter.core.patches import take_patch
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import ClassifierError, DamagedError
from svetlana_jupyter.learn import inference as predicting
from svetlana_jupyter.learn.training import fit
from tests.learn.calls import collect_training_data, predict
from tests.learn.conftest import two_classes

QUICK = TrainingSettings(epochs=1, steps=2, depth=2, width=4, trees=10, patches={"sampling": 12})


@pytest.fixture(scope="module", params=[2, 3], ids=["2D", "3D"])
def trained(request):
    annotated_image = two_classes(request.param)
    *_, fitted = fit(collect_training_data([annotated_image], QUICK))
    return annotated_image[0], annotated_image[1], fitted.classifier


@pytest.fixture(scope="module")
def probabilities(trained) -> dict[int, np.ndarray]:
    """The class probabilities of each object, cut and classified alone."""
    pair, objects, classifier = trained
    alone = {}
    for label, center in objects[list(map(str, pair.mask.dims))].iterrows():
        patch = take_patch(pair.image, pair.mask, center, classifier.patches, int(label))
        alone[label] = classifier.classify(patch[None])[0]
    return alone


def prediction_threads() -> list[threading.Thread]:
    return [
        thread for thread in threading.enumerate() if thread.name.startswith(("reading blocks", "classifying patches"))
    ]


def in_small_blocks(pair, monkeypatch):
    """Return the pair in more blocks than fit into the prediction queue."""
    small = dict.fromkeys(pair.mask.dims, 12)
    monkeypatch.setitem(blocks.MIN_BLOCK_SHAPE, pair.ndim, (12,) * pair.ndim)
    return type(pair)(pair.name, pair.image.chunk(small), pair.mask.chunk(small))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=st.integers(7, 60), batch=st.integers(1, 40))
def test_predictions_do_not_depend_on_chunks_or_batch_size(trained, probabilities, chunks, batch, monkeypatch):
    pair, objects, classifier = trained
    monkeypatch.setitem(blocks.MIN_BLOCK_SHAPE, pair.ndim, (chunks,) * pair.ndim)
    sides = dict.fromkeys(pair.mask.dims, chunks)
    chunked = type(pair)(pair.name, pair.image.chunk(sides), pair.mask.chunk(sides))
    done = 0
    for event in predict(chunked, objects, classifier, batch):
        assert 0 < len(event.objects) <= batch
        done += len(event.objects)
        for label, predicted in zip(event.objects, event.probabilities, strict=True):
            np.testing.assert_allclose(predicted, probabilities[label], atol=1e-5)
    assert done == len(objects)
    assert not prediction_threads()


def test_predictions_of_a_forest_do_not_depend_on_chunks(discs):
    pair, objects, _ = discs
    *_, fitted = fit(collect_training_data([discs], QUICK.changed(architecture="forest")))
    events = list(predict(pair, objects, fitted.classifier, 10))
    assert sorted(np.concatenate([event.objects for event in events]).tolist()) == objects.index.tolist()


def test_closing_the_generator_ends_the_reading_thread(trained, monkeypatch):
    pair, objects, classifier = trained
    running = predict(in_small_blocks(pair, monkeypatch), objects, classifier, 1)
    next(running)
    assert prediction_threads()
    running.close()
    assert not prediction_threads()


def test_a_read_error_is_raised_to_the_caller(trained):
    pair, objects, classifier = trained

    def fail_to_read(block: np.ndarray) -> np.ndarray:
        raise OSError("the disk is gone")

    broken_image = pair.image.data.map_blocks(fail_to_read, meta=np.zeros((0,) * pair.image.ndim, np.float32))
    with pytest.raises(OSError, match="the disk is gone"):
        list(predict(type(pair)(pair.name, pair.image.copy(data=broken_image), pair.mask), objects, classifier))
    assert not prediction_threads()


def test_a_stored_exception_keeps_no_reading_thread_alive(trained, monkeypatch):
    pair, objects, classifier = trained
    pair = in_small_blocks(pair, monkeypatch)
    monkeypatch.setattr(predicting, "OBJECTS_PER_PART", dict.fromkeys(predicting.OBJECTS_PER_PART, 1))
    first = int(predicting.split_into_parts(pair, objects, classifier)[0].index[0])
    read = type(classifier).read

    def failing_read(self, pair, selected, max_objects):
        if first in selected.index:
            raise DamagedError("a chunk is torn")
        yield from read(self, pair, selected, max_objects)

    monkeypatch.setattr(type(classifier), "read", failing_read)
    with pytest.raises(DamagedError, match="torn") as caught:
        list(predict(pair, objects, classifier, 1))
    assert not prediction_threads(), caught.value  # its traceback is still referenced


def test_no_objects_give_no_predictions(trained):
    pair, objects, classifier = trained
    assert list(predict(pair, objects.iloc[:0], classifier)) == []


def test_a_mismatched_image_is_refused(trained):
    _, _, classifier = trained
    other = two_classes(5 - classifier.ndim)
    with pytest.raises(ClassifierError, match="trained on"):
        classifier.check(other[0])


@pytest.fixture
def classifying(trained, monkeypatch) -> list[tuple[int, int]]:
    """Of each batch, the number of batches that are classified at that time, and the number of torch threads."""
    classifier, seen, now = trained[2], [], []
    classify = type(classifier).classify_and_embed

    def recorded(self, inputs):
        now.append(inputs)
        seen.append((len(now), torch.get_num_threads()))
        time.sleep(0.002)
        try:
            return classify(self, inputs)
        finally:
            now.pop()

    monkeypatch.setattr(type(classifier), "classify_and_embed", recorded)
    return seen


@pytest.fixture
def torch_threads():
    """Function that sets the number of torch threads until the end of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_threads_classify_whole_batches_and_give_the_same_probabilities(trained, classifying, torch_threads):
    results = []
    for count in (1, 3):
        torch_threads(count)
        classifying.clear()
        results.append(list(predict(*trained, batch_size=1)))
        assert {threads for _, threads in classifying} == {1}
        assert {at_once for at_once, _ in classifying} <= set(range(1, count + 1))
        assert torch.get_num_threads() == count
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one.objects, other.objects)
        np.testing.assert_array_equal(one.probabilities, other.probabilities)
        np.testing.assert_array_equal(one.features, other.features)


def test_a_module_of_the_user_is_called_by_one_thread_at_a_time(trained, classifying, torch_threads):
    pair, objects, classifier = trained
    own = type(classifier).__new__(type(classifier))
    own.__dict__.update(vars(classifier), parallel=False)
    torch_threads(3)
    list(predict(pair, objects, own, batch_size=1))
    assert set(classifying) == {(1, 3)}


def test_an_error_comes_after_all_results_before_it(trained, monkeypatch):
    pair, objects, classifier = trained
    parts = {number: objects.iloc[[number]] for number in range(4)}
    read = type(classifier).read

    def failing(self, pair, objects, max_objects):
        if objects.index[0] == parts[2].index[0]:
            raise RuntimeError("no more")
        return read(self, pair, objects, max_objects)

    monkeypatch.setattr(type(classifier), "read", failing)
    events = predicting.predict_parts(pair, parts, classifier)
    assert [type(next(events)).__name__ for _ in range(4)] == ["PredictionBatch", "PartFinished"] * 2
    with pytest.raises(RuntimeError, match="no more"):
        next(events)
    assert not prediction_threads()


def test_inputs_of_any_size_become_batches_in_the_same_order(trained, monkeypatch):
    pair, _, classifier = trained
    rng = np.random.default_rng(0)
    for _ in range(50):
        size, ends = int(rng.integers(1, 40)), np.cumsum(rng.integers(1, 60, rng.integers(1, 12)))
        labels = np.arange(ends[-1])
        inputs = [(some, partial(np.asarray, some * 2)) for some in np.split(labels, ends[:-1])]
        monkeypatch.setattr(predicting, "find_nonfinite_objects", lambda *_: [])
        monkeypatch.setattr(type(classifier), "read", lambda *_, inputs=inputs: iter(inputs))
        batches = list(predicting._read_batches(classifier, pair, pd.DataFrame(index=labels), size, {}))
        counts = [sum(len(some) for some, _ in batch) for batch in batches]
        assert all(count <= size or len(batch) == 1 for count, batch in zip(counts, batches, strict=True))
        firsts = [len(batch[0][0]) for batch in batches[1:]]
        assert all(count + first > size for count, first in zip(counts[:-1], firsts, strict=True))
        flat = [piece for batch in batches for piece in batch]
        np.testing.assert_array_equal(np.concatenate([some for some, _ in flat]), labels)
        np.testing.assert_array_equal(np.concatenate([cut() for _, cut in flat]), labels * 2)
