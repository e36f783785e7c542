"""A network of the user's own trains by object or by import path, and no file makes us import anything."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from svetlana_jupyter.errors import ClassifierError, InputError
from svetlana_jupyter.learn.classifier import load_classifier
from svetlana_jupyter.learn.events import FitResult
from svetlana_jupyter.learn.explain import explain
from svetlana_jupyter.learn.fit import fit
from svetlana_jupyter.learn.samples import collect_training_data
from svetlana_jupyter.learn.userland import find_network, import_network
from tests.learn.networks import Flat, Plain
from tests.learn.test_fit import QUICK, accuracy, trained

HERE = "tests.learn.networks"


def given(samples, network) -> FitResult:
    *_, last = fit(samples, network=network)
    assert isinstance(last, FitResult)
    return last


def test_a_module_given_as_an_object_learns_and_stays_as_it_was(part):
    found = part[0]
    module = Plain(3, 2, found.ndim)
    before = {name: values.clone() for name, values in module.state_dict().items()}
    samples = collect_training_data([part], QUICK.changed(epochs=12, learning_rate=0.03))
    first, second = given(samples, module), given(samples, module)
    assert accuracy(first, part) >= 0.95
    assert first.classifier.specification.settings.architecture == "own"
    for name, values in module.state_dict().items():
        assert torch.equal(values, before[name])
    for name, values in first.classifier.tensors().items():
        np.testing.assert_array_equal(values, second.classifier.tensors()[name])


def test_an_import_path_builds_the_class_with_what_it_asks_for(part):
    samples = collect_training_data([part], QUICK.changed(architecture=f"{HERE}:Plain", epochs=12, learning_rate=0.03))
    fitted = trained(samples)
    assert accuracy(fitted, part) >= 0.95
    assert fitted.classifier.module.body.layers[0].in_channels == samples.inputs.shape[1]


def test_it_is_saved_and_comes_back_by_object_or_by_path(discs, tmp_path):
    samples = collect_training_data([discs], QUICK)
    by_object, by_path = given(samples, Plain(3, 2)), trained(samples, architecture=f"{HERE}:Plain")
    _, inputs = next(by_object.classifier.cut(*discs[:2]))
    for name, fitted, network in (("object", by_object, Plain(3, 2)), ("path", by_path, None)):
        fitted.classifier.save(tmp_path / name)
        loaded = load_classifier(tmp_path / name, network=network)
        assert loaded.specification == fitted.classifier.specification
        np.testing.assert_allclose(loaded.classify(inputs), fitted.classifier.classify(inputs), atol=1e-6)


def test_what_was_given_as_an_object_and_is_missing_or_another_is_asked_for_in_a_sentence(discs, tmp_path):
    given(collect_training_data([discs], QUICK), Plain(3, 2)).classifier.save(tmp_path)
    with pytest.raises(ClassifierError, match=rf"a {HERE}:Plain that was given as an object.*network=…"):
        load_classifier(tmp_path)
    with pytest.raises(ClassifierError, match="do not fit the network"):
        load_classifier(tmp_path, network=Plain(4, 2))


def test_settings_alone_import_nothing(tmp_path):
    (tmp_path / "strangers.py").write_text("raise SystemExit('imported')\n")
    code = (
        "from svetlana_jupyter.learn.userland import build_own\n"
        "from svetlana_jupyter.errors import InputError\n"
        "try:\n    build_own('strangers:Net', 2, 1, 2)\n"
        "except InputError as error:\n    assert 'import strangers' in str(error)\n"
        "else:\n    raise AssertionError"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": ":".join([str(tmp_path), *sys.path])}
    )
    assert done.returncode == 0


def test_a_path_that_a_person_gives_is_imported(tmp_path, monkeypatch):
    (tmp_path / "mine_alone.py").write_text("import torch\n\nclass Net(torch.nn.Linear):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert import_network("mine_alone:Net").__name__ == "Net"
    with pytest.raises(InputError, match="cannot be imported"):
        import_network("mine_together:Net")


@pytest.mark.parametrize("path", [f"{HERE}:no_class", f"{HERE}:PLAIN", f"{HERE}:Missing", "os:system", "sys:modules"])
def test_only_classes_of_modules_are_ever_built(path):
    with pytest.raises(InputError, match="must be a class of torch"):
        find_network(path)


def test_a_class_that_asks_for_more_is_refused_with_what_to_do(discs):
    samples = collect_training_data([discs], QUICK.changed(architecture=f"{HERE}:Demanding"))
    with pytest.raises(InputError, match=r"asks for 'mood'.*give the object"):
        fit(samples)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Plain(3, 5), r"logits of shape \(2, 2\).*\(2, 3, 12, 12\).*it gives \(2, 5\)"),
        (torch.nn.Identity(), r"it gives \(2, 3, 12, 12\)"),
        (Plain(4, 2), r"fails on patches of shape \(2, 3, 12, 12\).*expected input.* to have 4 channels"),
        (torch.nn.LSTM(12, 2), "fails on|it gives tuple"),
        (torch.nn.Sequential(torch.nn.AdaptiveAvgPool3d((2, 1, 1)), torch.nn.Flatten()), "no weights to train"),
    ],
    ids=["classes", "identity", "channels", "tuple", "weightless"],
)
def test_a_module_of_the_wrong_shape_is_refused_in_one_sentence_before_training(discs, module, words):
    with pytest.raises(InputError, match=words):
        fit(collect_training_data([discs], QUICK), network=module)


def test_a_module_that_was_given_as_own_but_is_not_there_is_asked_for(discs):
    with pytest.raises(InputError, match="give the object as well"):
        fit(collect_training_data([discs], QUICK.changed(architecture="own")))


def test_grad_cam_looks_at_its_last_convolution_or_says_that_there_is_none(discs):
    found, objects, classes = discs
    samples = collect_training_data([discs], QUICK.changed(epochs=1))
    seen = explain(found, objects, int(classes.index[0]), given(samples, Plain(3, 2)).classifier)
    assert np.isfinite(seen["cam"]).all()
    with pytest.raises(ClassifierError, match="needs a network with a convolution"):
        explain(found, objects, int(classes.index[0]), given(samples, Flat(3, 2)).classifier)
