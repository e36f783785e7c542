"""Classifier folders: complete and free of executable code."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from svetlana_jupyter.core.io.image_pair import ImagePair, open_pair
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import ClassifierError
from svetlana_jupyter.learn.classifier import load_classifier
from svetlana_jupyter.learn.specification import SPEC_FILE, WEIGHTS_FILE
from svetlana_jupyter.learn.training import FitResult, fit
from tests.learn.calls import collect_training_data, cut
from tests.learn.conftest import two_classes

QUICK = TrainingSettings(epochs=2, steps=3, depth=2, width=4, trees=10, patches={"sampling": 12})


def train(annotated_image, architecture: str = "small_cnn", **changes):
    settings = QUICK.changed(architecture=architecture, **changes)
    *_, result = fit(collect_training_data([annotated_image], settings, names={4: "dark", 7: "<b>bright</b>"}))
    assert isinstance(result, FitResult)
    return result.classifier


@pytest.mark.parametrize("architecture", ["small_cnn", "forest", "live"])
def test_a_loaded_classifier_equals_the_saved_one(annotated_image, architecture, tmp_path):
    classifier = train(annotated_image, architecture)
    classifier.save(tmp_path / "run")
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == [SPEC_FILE, WEIGHTS_FILE]
    loaded = load_classifier(tmp_path / "run")
    assert loaded.specification == classifier.specification
    assert loaded.kind == classifier.kind
    _, inputs = next(cut(classifier, *annotated_image[:2]))
    np.testing.assert_allclose(loaded.classify(inputs), classifier.classify(inputs), atol=1e-6)


def test_the_description_is_readable_without_this_package(discs, tmp_path):
    train(discs).save(tmp_path)
    description = json.loads((tmp_path / SPEC_FILE).read_text(encoding="utf-8"))
    assert description["kind"] == "network"
    assert description["architecture"] == "small_cnn"
    assert description["classes"] == [{"id": 4, "name": "dark"}, {"id": 7, "name": "<b>bright</b>"}]
    assert description["ndim"] == 2
    assert description["channels"] == ["channel 1"]
    assert description["settings"]["patches"]["sampling"] == [12, 12]
    assert [entry["epoch"] for entry in description["history"]] == [1, 2]
    assert {"python", "torch", "scikit-learn", "svetlana-jupyter"} <= set(description["versions"])


def test_probabilities_have_one_column_per_class_and_sum_to_one(annotated_image):
    for architecture in ("small_cnn", "forest", "live"):
        classifier = train(annotated_image, architecture)
        _, inputs = next(cut(classifier, *annotated_image[:2]))
        probabilities = classifier.classify(inputs)
        assert probabilities.shape == (len(inputs), 2)
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.pkl", "weights.bin"])
def test_a_pickled_model_is_refused_with_instructions_to_convert_it(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps({"weights": 1}))
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(ClassifierError, match="save_file"):
            load_classifier(path)


def test_missing_corrupt_and_newer_classifiers_are_refused(discs, tmp_path):
    with pytest.raises(ClassifierError, match=r"has no classifier\.json"):
        load_classifier(tmp_path / "nowhere")
    train(discs).save(tmp_path)
    description, weights = tmp_path / SPEC_FILE, tmp_path / WEIGHTS_FILE
    text, saved = description.read_text(encoding="utf-8"), weights.read_bytes()
    for broken, message in (
        (text.replace('"format": 1', '"format": 2'), "newer version"),
        (text.replace('"network"', '"oracle"'), "unknown kind 'oracle'"),
        (text.replace('"depth"', '"deepness"'), "'deepness'"),
        (text[:50], "does not describe a classifier"),
        (text.replace('"width": 4', '"width": 8'), "do not fit the network"),
    ):
        description.write_text(broken, encoding="utf-8")
        with pytest.raises(ClassifierError, match=message):
            load_classifier(tmp_path)
    description.write_text(text, encoding="utf-8")
    weights.write_bytes(saved[:100])
    with pytest.raises(ClassifierError, match="cannot be read"):
        load_classifier(tmp_path)


def test_saving_over_a_folder_replaces_it_completely(discs, tmp_path):
    classifier = train(discs)
    classifier.save(tmp_path)
    classifier.save(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [SPEC_FILE, WEIGHTS_FILE]


def test_a_mismatched_image_is_refused_with_the_expected_properties(discs, balls):
    classifier = train(discs)
    classifier.check(discs[0])
    with pytest.raises(ClassifierError, match="trained on 2D images, but 'cells' is 3D"):
        classifier.check(balls[0])
    with pytest.raises(ClassifierError, match=r"expects 1 channels \(channel 1\)"):
        classifier.check(two_classes(2, channels=2)[0])


def test_channels_in_another_order_and_unknown_spacing_are_refused():
    pair, objects, classes = two_classes(2, channels=2)
    named = ImagePair("named", pair.image.assign_coords(c=["dna", "actin"]), pair.mask)
    turned = ImagePair("turned", pair.image.assign_coords(c=["actin", "dna"]), pair.mask)
    with pytest.raises(ClassifierError, match="in the order dna, actin"):
        train((named, objects, classes)).check(turned)
    spaced = open_pair("spaced", np.asarray(named.image), np.asarray(named.mask), "cyx", 0.5, ["dna", "actin"])
    in_um = train((spaced, objects, classes), patches={"unit": "um"})
    in_um.check(spaced)
    with pytest.raises(ClassifierError, match="no known pixel size"):
        in_um.check(named)


def test_an_unavailable_device_is_refused(discs):
    with pytest.raises(ClassifierError, match='Use device="auto"'):
        train(discs, device="mps")


def test_a_network_trained_on_an_unavailable_device_uses_the_best_available_one(discs, tmp_path):
    classifier = train(discs)
    elsewhere = classifier.specification.settings.changed(device="mps")
    classifier.specification = replace(classifier.specification, settings=elsewhere)
    classifier.save(tmp_path)
    loaded = load_classifier(tmp_path)
    _, inputs = next(cut(classifier, *discs[:2]))
    np.testing.assert_allclose(loaded.classify(inputs), classifier.classify(inputs), atol=1e-5)
    assert loaded.specification.settings.device == "mps"
