"""A training begins with what fits of another's weights, and says what it took and what not.

A network of the user's own trains by object or by import path, and no file makes us import anything.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from svetlana_jupyter.errors import ClassifierError, InputError
from svetlana_jupyter.learn import training as fitting
from svetlana_jupyter.learn.build import adapt_filters, find_network, import_network
from svetlana_jupyter.learn.classifier import load_classifier
from svetlana_jupyter.learn.dataset import collect_training_data
from svetlana_jupyter.learn.gradcam import explain
from svetlana_jupyter.learn.optim import batch_norm_layers
from svetlana_jupyter.learn.training import FitResult, fit
from tests.learn.conftest import two_classes
from tests.learn.networks import Flat, Plain
from tests.learn.test_training import QUICK, accuracy, trained

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
    with pytest.raises(ClassifierError, match=rf"user-defined torch module of class {HERE}:Plain.*network="):
        load_classifier(tmp_path)
    with pytest.raises(ClassifierError, match="do not fit the network"):
        load_classifier(tmp_path, network=Plain(4, 2))


def test_settings_alone_import_nothing(tmp_path):
    (tmp_path / "strangers.py").write_text("raise SystemExit('imported')\n")
    code = (
        "from svetlana_jupyter.learn.build import build_user_network\n"
        "from svetlana_jupyter.errors import InputError\n"
        "try:\n    build_user_network('strangers:Net', 2, 1, 2)\n"
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
    with pytest.raises(InputError, match=r"asks for 'mood'.*pass the object"):
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
    with pytest.raises(InputError, match="needs a user-defined torch module"):
        fit(collect_training_data([discs], QUICK.changed(architecture="own")))


def test_grad_cam_looks_at_its_last_convolution_or_says_that_there_is_none(discs):
    found, objects, classes = discs
    samples = collect_training_data([discs], QUICK.changed(epochs=1))
    seen = explain(found, objects, int(classes.index[0]), given(samples, Plain(3, 2)).classifier)
    assert np.isfinite(seen["cam"]).all()
    with pytest.raises(ClassifierError, match="needs a network with a convolution"):
        explain(found, objects, int(classes.index[0]), given(samples, Flat(3, 2)).classifier)


# So small a rate that the weights stay what they began as.
STILL = {"learning_rate": 1e-12, "weight_decay": 0.0, "epochs": 1, "steps": 1}


def weights(fitted: FitResult) -> dict[str, torch.Tensor]:
    return fitted.classifier.module.state_dict()


@pytest.fixture
def earlier(part, tmp_path) -> tuple[FitResult, str]:
    fitted = trained(collect_training_data([part], QUICK))
    fitted.classifier.save(tmp_path / "run")
    return fitted, str(tmp_path / "run")


def test_an_earlier_run_gives_all_its_weights_and_new_averages(part, earlier):
    fitted, folder = earlier
    samples = collect_training_data([part], QUICK.changed(seed=5, start_from=folder, **STILL))
    samples.inputs[:] = samples.inputs * 2 + 1
    after = trained(samples)
    assert after.notes == (f"Started from 14 of 14 weights of {folder}.",)
    for key, values in weights(fitted).items():
        if key.endswith(("weight", "bias")):
            torch.testing.assert_close(weights(after)[key], values)
    assert not torch.allclose(weights(after)["standardize.mean"], weights(fitted)["standardize.mean"])


def test_it_goes_on_learning_with_a_fresh_rate(part, earlier):
    fitted, folder = earlier
    before = collect_training_data([part], QUICK.changed(start_from=folder, learning_rate=1e-4, epochs=1, steps=2))
    assert trained(before).history[0].loss < fitted.history[0].loss / 2
    assert accuracy(trained(before), part) >= 0.95


def test_of_another_shape_only_what_fits_is_taken_and_the_rest_is_told(part, earlier):
    _, folder = earlier
    deeper = trained(collect_training_data([part], QUICK.changed(depth=3, start_from=folder, epochs=1)))
    (note,) = deeper.notes
    assert note.startswith("Started from 13 of 20 weights of ")
    assert "newly initialized: blocks.2.0.weight, blocks.2.0.bias, blocks.2.2.weight and 4 more." in note
    with pytest.raises(InputError, match=r"None of the weights of .* fits this network.*Choose the architecture"):
        given(collect_training_data([part], QUICK.changed(start_from=folder)), Plain(3, 2, part[0].ndim))


def test_each_class_keeps_its_own_row_of_the_last_layer(discs, tmp_path):
    found, objects, classes = discs
    fitted = trained(collect_training_data([discs], QUICK))
    fitted.classifier.save(tmp_path)
    more = classes.copy()
    more[more == 4] = 9  # the class of id 4 is gone, 9 is new and 7 was the second
    more.iloc[:3] = 2
    after = trained(
        collect_training_data([(found, objects, more)], QUICK.changed(seed=5, start_from=str(tmp_path), **STILL))
    )
    assert after.classifier.classes == (2, 7, 9)
    torch.testing.assert_close(weights(after)["head.weight"][1], weights(fitted)["head.weight"][1])
    for row in (0, 2):
        assert not torch.isclose(weights(after)["head.weight"][row], weights(fitted)["head.weight"]).all(dim=1).any()


def test_filters_are_adapted_to_another_number_of_channels(discs, tmp_path):
    fitted = trained(collect_training_data([discs], QUICK))
    fitted.classifier.save(tmp_path)
    two = collect_training_data([two_classes(2, channels=2)], QUICK.changed(start_from=str(tmp_path), **STILL))
    after = weights(trained(two))["blocks.0.0.weight"]
    torch.testing.assert_close(after.sum(1), weights(fitted)["blocks.0.0.weight"].sum(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after[:, 0], after[:, 3])


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
@pytest.mark.parametrize("rgb", [False, True])
def test_adapted_filters_answer_the_same_picture_in_every_channel_as_before(channels, rgb):
    filters = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    adapted = adapt_filters(filters, channels, rgb)
    picture = torch.randn(2, 1, 9, 9, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        torch.nn.functional.conv2d(picture.expand(-1, channels, -1, -1), adapted),
        torch.nn.functional.conv2d(picture.expand(-1, 3, -1, -1), filters),
        rtol=1e-4,
        atol=1e-5,
    )
    if rgb and channels == 4:
        torch.testing.assert_close(adapted[:, :3], filters * 3 / 4)


def test_a_users_own_state_dict_is_taken_by_its_own_names(discs, tmp_path):
    torch.manual_seed(7)
    module = Plain(3, 2)
    save_file(module.state_dict(), tmp_path / "mine.safetensors")
    settings = QUICK.changed(start_from=str(tmp_path / "mine.safetensors"), **STILL)
    after = given(collect_training_data([discs], settings), Plain(3, 2))
    assert after.notes[0].startswith("Started from 4 of 4 weights of ")
    for key, values in module.state_dict().items():
        torch.testing.assert_close(weights(after)[f"body.{key}"].cpu(), values)


@pytest.mark.parametrize(("body", "moves"), [("train", True), ("frozen", False)])
def test_a_frozen_body_stays_and_one_with_its_own_rate_moves_by_it(discs, tmp_path, body, moves):
    fitted = trained(collect_training_data([discs], QUICK))
    fitted.classifier.save(tmp_path)
    changes = {"start_from": str(tmp_path), "body": body, "epochs": 2, "weight_decay": 0.0, "seed": 3}
    after = weights(trained(collect_training_data([discs], QUICK.changed(**changes))))
    slow = weights(trained(collect_training_data([discs], QUICK.changed(**changes, body_rate=1e-12))))
    before = weights(fitted)
    assert bool((after["blocks.0.0.weight"] != before["blocks.0.0.weight"]).any()) is moves
    torch.testing.assert_close(slow["blocks.0.0.weight"], before["blocks.0.0.weight"])
    for each in (after, slow):
        assert (each["head.weight"] != before["head.weight"]).any()


def test_the_layers_of_a_frozen_body_see_the_averages_of_all_patches_while_the_last_one_trains(discs, monkeypatch):
    step, modes = fitting._NetworkTraining._step, []

    def watched(self, chosen, patches):
        loss = step(self, chosen, patches)
        modes.append((self.network.head.training, *(layer.training for layer in batch_norm_layers(self.network))))
        return loss

    monkeypatch.setattr(fitting._NetworkTraining, "_step", watched)
    trained(collect_training_data([discs], QUICK.changed(body="frozen", epochs=1, steps=2)))
    trained(collect_training_data([discs], QUICK.changed(epochs=1, steps=1)))
    assert modes == [(True, False, False), (True, False, False), (True, True, True)]


def test_a_frozen_network_can_still_be_trained_on_and_explained(discs):
    fitted = trained(collect_training_data([discs], QUICK.changed(body="frozen", epochs=30, learning_rate=0.05)))
    assert accuracy(fitted, discs) >= 0.9
    seen = explain(discs[0], discs[1], int(discs[2].index[0]), fitted.classifier)
    assert np.isfinite(seen["cam"]).all()
    assert float(seen["cam"].max()) > 0.5


def test_what_is_no_run_and_no_file_of_weights_is_refused_before_training(discs, tmp_path):
    trained(collect_training_data([discs], QUICK.changed(architecture="forest"))).classifier.save(tmp_path / "forest")
    (tmp_path / "model.pth").write_bytes(b"pickle")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    for name, error, words in (
        ("nowhere", InputError, "There is no "),
        ("forest", ClassifierError, "is a forest"),
        ("model.pth", ClassifierError, "pickled model"),
        ("broken.safetensors", ClassifierError, "cannot be read"),
    ):
        with pytest.raises(error, match=words):
            trained(collect_training_data([discs], QUICK.changed(start_from=str(tmp_path / name))))


def test_transfer_gives_the_same_weights_twice(part, earlier):
    _, folder = earlier
    first, second = (
        trained(collect_training_data([part], QUICK.changed(start_from=folder, epochs=2))) for _ in range(2)
    )
    for key, values in first.classifier.tensors().items():
        np.testing.assert_array_equal(values, second.classifier.tensors()[key])
