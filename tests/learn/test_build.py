"""User networks and initial weights of earlier runs.

User networks are given as an object or an import path; no loaded file triggers an import.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from svetlana_jupyter.errors import ClassifierError, InputError
from svetlana_jupyter.learn import training as fitting
from svetlana_jupyter.learn.build import adapt_filters, build_user_network, find_network, import_network
from svetlana_jupyter.learn.classifier import load_classifier
from svetlana_jupyter.learn.gradcam import explain
from svetlana_jupyter.learn.optim import batch_norm_layers
from svetlana_jupyter.learn.training import FitResult, fit
from tests.learn.calls import collect_training_data, cut
from tests.learn.conftest import two_classes
from tests.learn.networks import Flat, Plain
from tests.learn.test_training import QUICK, accuracy, assert_same_weights, trained

NETWORKS_MODULE = "tests.learn.networks"


def fit_module(samples, network) -> FitResult:
    *_, last = fit(samples, network=network)
    assert isinstance(last, FitResult)
    return last


def test_a_module_object_is_trained_without_being_modified(annotated_image):
    pair = annotated_image[0]
    module = Plain(3, 2, pair.ndim)
    before = {name: values.clone() for name, values in module.state_dict().items()}
    samples = collect_training_data([annotated_image], QUICK.changed(epochs=12, learning_rate=0.03))
    first, second = fit_module(samples, module), fit_module(samples, module)
    assert accuracy(first, annotated_image) >= 0.95
    assert first.classifier.specification.settings.architecture == "own"
    for name, values in module.state_dict().items():
        assert torch.equal(values, before[name])
    assert_same_weights(first, second)


def test_an_import_path_builds_the_class_with_its_arguments(annotated_image):
    samples = collect_training_data(
        [annotated_image], QUICK.changed(architecture=f"{NETWORKS_MODULE}:Plain", epochs=12, learning_rate=0.03)
    )
    fitted = trained(samples)
    assert accuracy(fitted, annotated_image) >= 0.95
    assert fitted.classifier.module.body.layers[0].in_channels == samples.inputs.shape[1]


def test_a_user_network_is_saved_and_loaded_by_object_or_path(discs, tmp_path):
    samples = collect_training_data([discs], QUICK)
    by_object, by_path = fit_module(samples, Plain(3, 2)), trained(samples, architecture=f"{NETWORKS_MODULE}:Plain")
    _, inputs = next(cut(by_object.classifier, *discs[:2]))
    for name, fitted, network in (("object", by_object, Plain(3, 2)), ("path", by_path, None)):
        fitted.classifier.save(tmp_path / name)
        loaded = load_classifier(tmp_path / name, network=network)
        assert loaded.specification == fitted.classifier.specification
        assert not loaded.parallel
        np.testing.assert_allclose(loaded.classify(inputs), fitted.classifier.classify(inputs), atol=1e-6)


def test_loading_without_the_matching_module_object_is_refused(discs, tmp_path):
    fit_module(collect_training_data([discs], QUICK), Plain(3, 2)).classifier.save(tmp_path)
    with pytest.raises(ClassifierError, match=rf"user-defined torch module of class {NETWORKS_MODULE}:Plain.*network="):
        load_classifier(tmp_path)
    with pytest.raises(ClassifierError, match="do not fit the network"):
        load_classifier(tmp_path, network=Plain(4, 2))


def test_settings_do_not_import_from_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "strangers.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="import strangers"):
        build_user_network("strangers:Net", 2, 1, 2)


def test_an_import_path_of_the_user_is_imported(tmp_path, monkeypatch):
    (tmp_path / "mine_alone.py").write_text("import torch\n\nclass Net(torch.nn.Linear):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert import_network("mine_alone:Net").__name__ == "Net"
    with pytest.raises(InputError, match="cannot be imported"):
        import_network("mine_together:Net")


@pytest.mark.parametrize(
    "path",
    [
        f"{NETWORKS_MODULE}:no_class",
        f"{NETWORKS_MODULE}:PLAIN",
        f"{NETWORKS_MODULE}:Missing",
        "os:system",
        "sys:modules",
    ],
)
def test_only_subclasses_of_module_are_instantiated(path):
    with pytest.raises(InputError, match="must be a subclass of torch"):
        find_network(path)


def test_a_class_with_unknown_arguments_is_refused_with_a_suggestion(discs):
    samples = collect_training_data([discs], QUICK.changed(architecture=f"{NETWORKS_MODULE}:Demanding"))
    with pytest.raises(InputError, match=r"asks for 'mood'.*pass the object"):
        fit(samples)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Plain(3, 5), r"logits of shape \(2, 2\).*\(2, 3, 12, 12\).*it returns \(2, 5\)"),
        (torch.nn.Identity(), r"it returns \(2, 3, 12, 12\)"),
        (Plain(4, 2), r"fails on patches of shape \(2, 3, 12, 12\).*expected input.* to have 4 channels"),
        (torch.nn.LSTM(12, 2), "fails on|it returns tuple"),
        (torch.nn.Sequential(torch.nn.AdaptiveAvgPool3d((2, 1, 1)), torch.nn.Flatten()), "no weights to train"),
    ],
    ids=["classes", "identity", "channels", "tuple", "weightless"],
)
def test_a_module_of_the_wrong_shape_is_refused_before_training(discs, module, message):
    with pytest.raises(InputError, match=message):
        fit(collect_training_data([discs], QUICK), network=module)


def test_architecture_own_requires_the_module_object(discs):
    with pytest.raises(InputError, match="needs a user-defined torch module"):
        fit(collect_training_data([discs], QUICK.changed(architecture="own")))


def test_grad_cam_requires_a_convolution_in_a_user_network(discs):
    pair, objects, classes = discs
    samples = collect_training_data([discs], QUICK.changed(epochs=1))
    explanation = explain(pair, objects, int(classes.index[0]), fit_module(samples, Plain(3, 2)).classifier)
    assert np.isfinite(explanation["cam"]).all()
    with pytest.raises(ClassifierError, match="needs a convolutional network"):
        explain(pair, objects, int(classes.index[0]), fit_module(samples, Flat(3, 2)).classifier)


# The learning rate is so small that the weights do not change.
NO_LEARNING = {"learning_rate": 1e-12, "weight_decay": 0.0, "epochs": 1, "steps": 1}


def weights(fitted: FitResult) -> dict[str, torch.Tensor]:
    return fitted.classifier.module.state_dict()


@pytest.fixture
def earlier_run(annotated_image, tmp_path) -> tuple[FitResult, str]:
    fitted = trained(collect_training_data([annotated_image], QUICK))
    fitted.classifier.save(tmp_path / "run")
    return fitted, str(tmp_path / "run")


def test_starting_from_an_earlier_run_copies_weights_but_not_batch_norm_statistics(annotated_image, earlier_run):
    fitted, folder = earlier_run
    samples = collect_training_data([annotated_image], QUICK.changed(seed=5, start_from=folder, **NO_LEARNING))
    samples.inputs[:] = samples.inputs * 2 + 1
    after = trained(samples)
    assert after.notes == (f"Started from 14 of 14 weights of {folder}.",)
    for key, values in weights(fitted).items():
        if key.endswith(("weight", "bias")):
            torch.testing.assert_close(weights(after)[key], values)
    assert not torch.allclose(weights(after)["standardize.mean"], weights(fitted)["standardize.mean"])


def test_training_continues_from_an_earlier_run(annotated_image, earlier_run):
    fitted, folder = earlier_run
    before = collect_training_data(
        [annotated_image], QUICK.changed(start_from=folder, learning_rate=1e-4, epochs=1, steps=2)
    )
    assert trained(before).history[0].loss < fitted.history[0].loss / 2
    assert accuracy(trained(before), annotated_image) >= 0.95


def test_only_weights_of_matching_shape_are_copied_and_the_others_are_reported(annotated_image, earlier_run):
    _, folder = earlier_run
    deeper = trained(collect_training_data([annotated_image], QUICK.changed(depth=3, start_from=folder, epochs=1)))
    (note,) = deeper.notes
    assert note.startswith("Started from 13 of 20 weights of ")
    assert "newly initialized: blocks.2.0.weight, blocks.2.0.bias, blocks.2.2.weight and 4 more." in note
    with pytest.raises(InputError, match=r"None of the weights of .* fits this network.*Choose the architecture"):
        fit_module(
            collect_training_data([annotated_image], QUICK.changed(start_from=folder)),
            Plain(3, 2, annotated_image[0].ndim),
        )


def test_each_class_keeps_its_row_of_the_last_layer(discs, tmp_path):
    pair, objects, classes = discs
    fitted = trained(collect_training_data([discs], QUICK))
    fitted.classifier.save(tmp_path)
    new_classes = classes.copy()
    new_classes[new_classes == 4] = 9  # class id 4 is removed, 9 is new and 7 was second
    new_classes.iloc[:3] = 2
    after = trained(
        collect_training_data(
            [(pair, objects, new_classes)], QUICK.changed(seed=5, start_from=str(tmp_path), **NO_LEARNING)
        )
    )
    assert after.classifier.classes == (2, 7, 9)
    torch.testing.assert_close(weights(after)["head.weight"][1], weights(fitted)["head.weight"][1])
    for row in (0, 2):
        assert not torch.isclose(weights(after)["head.weight"][row], weights(fitted)["head.weight"]).all(dim=1).any()


def test_filters_are_adapted_to_another_number_of_channels(discs, tmp_path):
    fitted = trained(collect_training_data([discs], QUICK))
    fitted.classifier.save(tmp_path)
    two = collect_training_data([two_classes(2, channels=2)], QUICK.changed(start_from=str(tmp_path), **NO_LEARNING))
    after = weights(trained(two))["blocks.0.0.weight"]
    torch.testing.assert_close(after.sum(1), weights(fitted)["blocks.0.0.weight"].sum(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after[:, 0], after[:, 3])


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
@pytest.mark.parametrize("rgb", [False, True])
def test_adapted_filters_respond_equally_to_identical_channels(channels, rgb):
    filters = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    adapted = adapt_filters(filters, channels, rgb)
    pattern = torch.randn(2, 1, 9, 9, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        torch.nn.functional.conv2d(pattern.expand(-1, channels, -1, -1), adapted),
        torch.nn.functional.conv2d(pattern.expand(-1, 3, -1, -1), filters),
        rtol=1e-4,
        atol=1e-5,
    )
    if rgb and channels == 4:
        torch.testing.assert_close(adapted[:, :3], filters * 3 / 4)


def test_a_user_state_dict_is_loaded_by_its_names(discs, tmp_path):
    torch.manual_seed(7)
    module = Plain(3, 2)
    save_file(module.state_dict(), tmp_path / "mine.safetensors")
    settings = QUICK.changed(start_from=str(tmp_path / "mine.safetensors"), **NO_LEARNING)
    after = fit_module(collect_training_data([discs], settings), Plain(3, 2))
    assert after.notes[0].startswith("Started from 4 of 4 weights of ")
    for key, values in module.state_dict().items():
        torch.testing.assert_close(weights(after)[f"body.{key}"].cpu(), values)


@pytest.mark.parametrize(("body", "moves"), [("train", True), ("frozen", False)])
def test_a_frozen_body_is_not_trained_and_body_rate_applies_to_the_body(discs, tmp_path, body, moves):
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


def test_a_frozen_body_uses_running_statistics_while_the_head_trains(discs, monkeypatch):
    step, modes = fitting._NetworkTraining._step, []

    def recording_step(self, chosen, patches):
        loss = step(self, chosen, patches)
        modes.append((self.network.head.training, *(layer.training for layer in batch_norm_layers(self.network))))
        return loss

    monkeypatch.setattr(fitting._NetworkTraining, "_step", recording_step)
    trained(collect_training_data([discs], QUICK.changed(body="frozen", epochs=1, steps=2)))
    trained(collect_training_data([discs], QUICK.changed(epochs=1, steps=1)))
    assert modes == [(True, False, False), (True, False, False), (True, True, True)]


def test_a_frozen_network_can_be_trained_and_explained(discs):
    fitted = trained(collect_training_data([discs], QUICK.changed(body="frozen", epochs=30, learning_rate=0.05)))
    assert accuracy(fitted, discs) >= 0.9
    explanation = explain(discs[0], discs[1], int(discs[2].index[0]), fitted.classifier)
    assert np.isfinite(explanation["cam"]).all()
    assert float(explanation["cam"].max()) > 0.5


def test_invalid_initial_weights_are_refused_before_training(discs, tmp_path):
    trained(collect_training_data([discs], QUICK.changed(architecture="forest"))).classifier.save(tmp_path / "forest")
    (tmp_path / "model.pth").write_bytes(b"pickle")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    for name, error, message in (
        ("nowhere", InputError, "There is no "),
        ("forest", ClassifierError, "is a forest"),
        ("model.pth", ClassifierError, "pickled model"),
        ("broken.safetensors", ClassifierError, "cannot be read"),
    ):
        with pytest.raises(error, match=message):
            trained(collect_training_data([discs], QUICK.changed(start_from=str(tmp_path / name))))


def test_transfer_learning_is_reproducible(annotated_image, earlier_run):
    _, folder = earlier_run
    first, second = (
        trained(collect_training_data([annotated_image], QUICK.changed(start_from=folder, epochs=2))) for _ in range(2)
    )
    assert_same_weights(first, second)
