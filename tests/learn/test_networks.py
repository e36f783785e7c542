"""Network architectures in 2D and 3D, folded networks and pretrained torchvision networks."""

from __future__ import annotations

from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import nn

from svetlana_jupyter.core.settings import TORCHVISION_ARCHITECTURES, TrainingSettings
from svetlana_jupyter.errors import InputError, SettingsError
from svetlana_jupyter.learn.build import build_network
from svetlana_jupyter.learn.classifier import load_classifier
from svetlana_jupyter.learn.gradcam import explain
from svetlana_jupyter.learn.networks import SmallCNN, Standardize, TorchvisionNetwork, fold_network, load_torchvision
from svetlana_jupyter.learn.training import FitResult, fit
from tests.learn.calls import collect_training_data, cut
from tests.learn.conftest import two_classes
from tests.learn.test_training import QUICK, accuracy, assert_same_weights, trained


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(("depth", "width"), [(1, 4), (2, 16), (3, 2)])
@pytest.mark.parametrize("side", [5, 12])
def test_logits_are_finite_for_any_depth_width_and_side(ndim, depth, width, side):
    network = SmallCNN(ndim, channels=3, classes=4, depth=depth, width=width).eval()
    logits = network(torch.zeros(1, 3, *[side] * ndim))
    assert logits.shape == (1, 4)
    assert torch.isfinite(logits).all()


def test_depth_3_and_width_16_is_the_network_of_figure_7_of_the_paper():
    network = SmallCNN(2, channels=1, classes=2, depth=3, width=16)
    maps, sizes = torch.zeros(1, 1, 40, 40), []
    for block in network.blocks:
        maps = block(maps)
        sizes.append(tuple(maps.shape[1:]))
    assert sizes == [(16, 20, 20), (32, 10, 10), (64, 5, 5)]
    assert [type(layer).__name__ for layer in network.blocks[0]] == ["Conv2d", "ReLU", "BatchNorm2d", "MaxPool2d"]
    assert network.head.in_features == 64


def test_outputs_are_logits_not_probabilities():
    torch.manual_seed(0)
    logits = build_network(TrainingSettings(), 2, 1, 3)(torch.randn(16, 1, 16, 16))
    assert not torch.allclose(logits.sum(dim=1), torch.ones(16))


def test_standardization_keeps_a_constant_channel():
    layer = Standardize(2)
    patches = torch.stack([torch.full((4, 4), 3.0), torch.arange(16.0).reshape(4, 4)])[None]
    layer.measure(patches)
    out = layer(patches)
    assert torch.equal(out[0, 0], torch.zeros(4, 4))
    assert out[0, 1].std(correction=0) == pytest.approx(1.0)


CPU = torch.device("cpu")


def _trained(ndim: int, channels: int, depth: int, width: int) -> SmallCNN:
    """Return a network with random normalization statistics, scales and shifts, some scales negative."""
    torch.manual_seed(0)
    network = SmallCNN(ndim, channels, classes=3, depth=depth, width=width).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            for values in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(values)
            nn.init.uniform_(module.running_var, 0.1, 2.0)
    return network


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(("depth", "width"), [(1, 1), (2, 5), (3, 16)])
@pytest.mark.parametrize(("side", "channels", "n"), [(4, 1, 1), (11, 3, 5), (24, 7, 2)])
def test_a_folded_network_returns_the_logits_of_the_network(ndim, depth, width, side, channels, n):
    network = _trained(ndim, channels, depth, width)
    patches = 3 * torch.randn(n, channels, *[side] * ndim) + 1
    network.standardize.measure(patches)
    folded = fold_network(network, CPU)
    with torch.inference_mode():
        torch.testing.assert_close(folded(patches), network(patches), rtol=1e-5, atol=1e-5)
        flipped = patches.flip(-1).transpose(-1, -2)
        torch.testing.assert_close(folded(flipped), network(flipped), rtol=1e-5, atol=1e-5)


def test_only_small_cnn_on_the_cpu_can_be_folded():
    assert fold_network(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), CPU) is None
    assert fold_network(SmallCNN(2, 1, 2, 1, 1), torch.device("meta")) is None
    grouped = build_network(TrainingSettings(norm="group"), 2, 1, 2)
    assert isinstance(grouped, SmallCNN)
    assert fold_network(grouped, CPU) is None


def test_a_folded_network_is_independent_of_further_training():
    network = _trained(2, 1, 1, 4)
    patches = torch.randn(2, 1, 8, 8)
    folded = fold_network(network, CPU)
    before = folded(patches)
    network.standardize.measure(9 * patches)
    with torch.no_grad():
        for values in network.parameters():
            values.zero_()
    assert torch.equal(folded(patches), before)


FAMILIES = ["resnet18", "densenet121", "alexnet"]
TWO_STEPS = QUICK.changed(epochs=1, steps=2, batch_size=4, learning_rate=0.0001)


def patch_settings_for_object(name: str, **changes) -> TrainingSettings:
    settings = TWO_STEPS.changed(architecture=name, **changes)
    return settings.changed(patches={"sampling": settings.min_patch_side})


def weights_enum(name: str):
    return type(load_torchvision().models.get_model_weights(name).DEFAULT)


def first_annotations(annotated_image, count: int = 4):
    pair, objects, classes = annotated_image
    return pair, objects, classes.groupby(classes).head(count)


@pytest.mark.parametrize("name", TORCHVISION_ARCHITECTURES)
def test_torchvision_networks_accept_any_number_of_channels_and_classes(name):
    torch.manual_seed(0)
    with torch.device("meta"):  # shapes only: the largest networks have millions of weights
        network = TorchvisionNetwork(name, channels=5, classes=7).eval()
        logits = network(torch.zeros(2, 5, *[QUICK.changed(architecture=name).min_patch_side] * 2))
    assert logits.shape == (2, 7)
    assert dict(network.named_parameters())[network.first_conv_weight].shape[1] == 5
    assert network.last_layer.out_features == 7


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_trains_reproducibly_and_can_be_saved_and_loaded(discs, name, tmp_path):
    samples = collect_training_data([first_annotations(discs)], patch_settings_for_object(name))
    first, second = trained(samples), trained(samples)
    assert_same_weights(first, second)
    first.classifier.save(tmp_path)
    _, inputs = next(cut(first.classifier, discs[0], discs[1][:5]))
    np.testing.assert_allclose(load_classifier(tmp_path).classify(inputs), first.classifier.classify(inputs), atol=1e-5)
    explanation = explain(discs[0], discs[1], int(discs[2].index[0]), first.classifier)
    assert 0 <= float(explanation["cam"].min()) <= float(explanation["cam"].max()) <= 1


def test_a_resnet_learns_from_a_few_annotations(discs):
    assert (
        accuracy(
            trained(
                collect_training_data(
                    [first_annotations(discs)],
                    patch_settings_for_object("resnet18", epochs=4, steps=6, learning_rate=0.001),
                )
            ),
            discs,
        )
        >= 0.9
    )


def test_a_resnet_with_group_norm_has_no_running_statistics(discs):
    network = build_network(patch_settings_for_object("resnet18", norm="group"), 2, 3, 2)
    assert not any("running" in key for key in network.state_dict())


@pytest.mark.parametrize("name", FAMILIES)
def test_too_small_patches_are_refused_with_the_required_size(discs, name):
    settings = patch_settings_for_object(name)
    side = settings.min_patch_side
    samples = collect_training_data([discs], settings.changed(patches={"sampling": side - 1}))
    with pytest.raises(SettingsError, match=rf"{name} needs at least {side}.*\"sampling\": {side}"):
        fit(samples)


@pytest.mark.parametrize("name", FAMILIES)
def test_automatic_sampling_meets_the_minimum_patch_size(discs, name):
    settings = patch_settings_for_object(name).changed(patches={"sampling": None})
    samples = collect_training_data([first_annotations(discs)], settings)
    default = QUICK.changed(patches={"sampling": None})
    default_patches = collect_training_data([first_annotations(discs)], default).settings.patches
    assert samples.settings.patches.size == default_patches.size
    assert samples.settings.patches.sampling == (settings.min_patch_side,) * 2 != default_patches.sampling
    *_, last = fit(samples)
    assert isinstance(last, FitResult)


def test_torchvision_networks_refuse_volumes(balls):
    samples = collect_training_data([balls], QUICK.changed(architecture="resnet18", patches={"sampling": 32}))
    with pytest.raises(SettingsError, match=r"resnet18 is for 2D images only.*small_cnn"):
        fit(samples)


def published_weights(name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return load_torchvision().models.get_model(name, weights=None).state_dict()


@pytest.mark.parametrize("channels", [1, 3])
def test_pretrained_weights_are_loaded_and_new_ones_are_reported(channels, monkeypatch):
    calls = []

    def fetch(self, **options):
        calls.append(options)
        return published_weights("resnet18")

    monkeypatch.setattr(weights_enum("resnet18"), "get_state_dict", fetch)
    annotated_image = first_annotations(two_classes(2, channels=channels))
    samples = collect_training_data(
        [annotated_image], patch_settings_for_object("resnet18", pretrained=True, body="frozen")
    )
    fitted = trained(samples)
    assert calls == [{"progress": False, "check_hash": True, "weights_only": True}]
    note, *_ = fitted.notes
    assert "of the published resnet18; newly initialized: body.fc.weight (2 × 512 instead of 1000 × 512)" in note
    weights, published = fitted.classifier.module.cpu().body.state_dict(), published_weights("resnet18")
    assert torch.equal(weights["layer3.1.conv2.weight"], published["layer3.1.conv2.weight"])
    # Identical channels give the same response as a gray RGB image.
    torch.testing.assert_close(weights["conv1.weight"].sum(1), published["conv1.weight"].sum(1), rtol=1e-4, atol=1e-5)
    if channels == 3:  # twice red, green and blue, then the mask
        ratio = weights["conv1.weight"][:, :6] / published["conv1.weight"].repeat(1, 2, 1, 1)
        torch.testing.assert_close(ratio, torch.full_like(ratio, 3 / 7))


def test_old_weight_names_of_densenet_are_converted(monkeypatch):
    published = published_weights("densenet121")
    old = {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.") if "denselayer" in key else key: values
        for key, values in published.items()
    }
    assert old.keys() != published.keys()
    monkeypatch.setattr(weights_enum("densenet121"), "get_state_dict", lambda self, **options: old)
    samples = collect_training_data(
        [first_annotations(two_classes(2))],
        patch_settings_for_object("densenet121", pretrained=True, epochs=1, steps=1),
    )
    note, *_ = trained(samples).notes
    assert note.endswith(
        "newly initialized: body.classifier.weight (2 × 1024 instead of 1000 × 1024), "
        "body.classifier.bias (2 instead of 1000)."
    )


def test_failed_weight_downloads_are_reported_before_training(discs, monkeypatch):
    def offline(self, **options):
        raise URLError("no route to host")

    monkeypatch.setattr(weights_enum("resnet18"), "get_state_dict", offline)
    samples = collect_training_data([first_annotations(discs)], patch_settings_for_object("resnet18", pretrained=True))
    with pytest.raises(InputError, match=r"could not be downloaded from https://.*no route to host.*pretrained=False"):
        fit(samples)


def test_weights_are_downloaded_only_on_request(discs, monkeypatch, tmp_path):
    def fetch(self, **options):
        raise AssertionError("fetched")

    monkeypatch.setattr(weights_enum("resnet18"), "get_state_dict", fetch)
    samples = collect_training_data(
        [first_annotations(discs)], patch_settings_for_object("resnet18", epochs=1, steps=1)
    )
    fitted = trained(samples)
    specification = fitted.classifier.specification
    described = type(specification)(
        **{**vars(specification), "settings": specification.settings.changed(pretrained=True)}
    )
    fitted.classifier.specification = described
    fitted.classifier.save(tmp_path)
    assert load_classifier(tmp_path).specification.settings.pretrained  # the folder already contains the weights


def test_pretrained_is_refused_without_published_weights(discs):
    with pytest.raises(SettingsError, match=r"not for 'small_cnn'.*start_from"):
        fit(collect_training_data([discs], QUICK.changed(pretrained=True)))
