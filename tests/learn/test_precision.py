"""Precision of networks: the probe of the processor, training and prediction in 16 bits, and features."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from svetlana_jupyter.core.io.image_pair import open_pair
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.learn import device as devices
from svetlana_jupyter.learn.classifier import NetworkClassifier
from svetlana_jupyter.learn.device import compute_dtype, is_faster_in_16_bits, time_convolutions
from svetlana_jupyter.samples import bright_foci_3d, faint_foci
from tests.learn.calls import collect_training_data, cut
from tests.learn.test_training import QUICK, accuracy, assert_same_weights, trained

CPU = torch.device("cpu")


@pytest.fixture
def processor(monkeypatch):
    """Function that replaces the measured speedup of 16 bits, and the number of measurements."""
    measured = []

    def set_speedup(speedup: float) -> list[float]:
        def measure(dtypes):
            measured.append(speedup)
            return {dtype: 1.0 if dtype is torch.float32 else 1 / speedup for dtype in dtypes}

        monkeypatch.setattr(devices, "time_convolutions", measure)
        is_faster_in_16_bits.cache_clear()
        return measured

    yield set_speedup
    is_faster_in_16_bits.cache_clear()


def test_automatic_precision_follows_one_measurement_per_process(processor):
    for speedup, expected in ((0.05, torch.float32), (1.1, torch.float32), (1.4, torch.bfloat16)):
        measured = processor(speedup)
        measured.clear()
        assert [compute_dtype("auto", CPU) for _ in range(3)] == [expected] * 3
        assert measured == [speedup]
        assert compute_dtype("full", CPU) == torch.float32
        assert compute_dtype("mixed", CPU) == torch.bfloat16


def test_the_probe_measures_every_type():
    seconds = time_convolutions((torch.float32, torch.bfloat16))
    assert list(seconds) == [torch.float32, torch.bfloat16]
    assert all(0 < value < np.inf for value in seconds.values())


def test_automatic_precision_on_graphics_processors(monkeypatch):
    cuda, mps = map(torch.device, ("cuda", "mps"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert [compute_dtype("auto", device) for device in (cuda, mps)] == [torch.bfloat16, torch.float32]
    assert [compute_dtype("full", device) for device in (cuda, mps)] == [torch.float32] * 2
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert compute_dtype("auto", cuda) == torch.float16


def test_mixed_precision_trains_and_saves_in_32_bits(annotated_image):
    fitted = trained(collect_training_data([annotated_image], QUICK.changed(precision="mixed")))
    assert accuracy(fitted, annotated_image) >= 0.95
    assert {values.dtype for values in fitted.classifier.tensors().values()} == {np.dtype("f4"), np.dtype("i8")}
    plain = trained(collect_training_data([annotated_image], QUICK.changed(precision="full")))
    assert fitted.history[-1].loss != plain.history[-1].loss


@pytest.mark.parametrize(("speedup", "precision", "same"), [(2.0, "bfloat16", "mixed"), (1.0, "float32", "full")])
def test_the_probe_decides_in_which_precision_a_network_trains_and_predicts(discs, processor, speedup, precision, same):
    processor(speedup)
    settings = QUICK.changed(epochs=2)
    fitted = trained(collect_training_data([discs], settings))
    expected = trained(collect_training_data([discs], settings.changed(precision=same)))
    assert fitted.classifier.precision == expected.classifier.precision == precision
    assert_same_weights(fitted, expected)
    inputs = _inputs(fitted.classifier, discs)
    np.testing.assert_array_equal(fitted.classifier.classify(inputs), expected.classifier.classify(inputs))


def test_a_classifier_keeps_its_precision_in_another_process(discs, processor):
    processor(2.0)
    classifier = trained(collect_training_data([discs], QUICK.changed(epochs=1))).classifier
    processor(1.0)
    copied = pickle.loads(pickle.dumps(classifier))
    assert copied.precision == "bfloat16"
    inputs = _inputs(classifier, discs)
    np.testing.assert_array_equal(copied.classify(inputs), classifier.classify(inputs))


def _inputs(classifier, annotated_image):
    pair, objects, _ = annotated_image
    return np.concatenate([inputs for _, inputs in cut(classifier, pair, objects)])


@pytest.mark.parametrize(
    ("make", "shape", "labeled", "changes"),
    [
        (faint_foci, {"size": 900, "count": 200, "step": 54}, 60, {"preset": "oriented", "epochs": 12}),
        (bright_foci_3d, {"shape": (48, 144, 144), "count": 60}, 30, {"epochs": 3, "steps": 8, "width": 8}),
    ],
    ids=["2D", "3D"],
)
def test_probabilities_in_16_bits_stay_close_to_those_in_32_bits(make, shape, labeled, changes):
    sample = make(seed=1, **shape)
    image, axes = np.asarray(sample.image), "zyx"[-sample.mask.ndim :]
    pair = open_pair("a", image, np.asarray(sample.mask), axes=axes)
    objects = index_objects(pair.mask)
    chosen = objects.index[:labeled]
    classes = pd.Series(sample.classes[chosen - 1], index=chosen)
    fitted = trained(collect_training_data([(pair, objects, classes)], TrainingSettings(**changes)))
    specification, module = fitted.classifier.specification, fitted.classifier.module
    full, mixed = (
        NetworkClassifier(replace(specification, settings=specification.settings.changed(precision=name)), module)
        for name in ("full", "mixed")
    )
    inputs = _inputs(full, (pair, objects.iloc[labeled:], None))
    expected, found = full.classify(inputs), mixed.classify(inputs)
    differences = np.abs(found - expected)
    assert 0 < differences.mean() <= 0.01
    assert np.quantile(differences, 0.99) <= 0.03
    first, second = np.sort(expected, axis=1)[:, :-3:-1].T
    changed = expected.argmax(axis=1) != found.argmax(axis=1)
    assert (first - second)[changed].max(initial=0) < 0.05


@pytest.mark.parametrize("precision", ["full", "mixed"])
def test_features_are_the_input_of_the_last_layer(annotated_image, precision):
    classifier = trained(
        collect_training_data([annotated_image], QUICK.changed(epochs=1, precision=precision))
    ).classifier
    inputs = _inputs(classifier, annotated_image)
    probabilities, features = classifier.classify_and_embed(inputs)
    np.testing.assert_array_equal(probabilities, classifier.classify(inputs))
    assert features.dtype == np.float16
    module = classifier.module
    with torch.inference_mode():
        pooled = module.pool(module.blocks(module.standardize(torch.from_numpy(inputs)))).numpy()
    np.testing.assert_allclose(features, pooled, atol=0.002 if precision == "full" else 0.05, rtol=0.02)
