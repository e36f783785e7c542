"""One description gives networks in 2D and 3D.

The packed form of a network gives the network's own logits.

The published 2D networks train on any number of channels, and begin with published weights where they are there.
"""

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
from svetlana_jupyter.learn.dataset import collect_training_data
from svetlana_jupyter.learn.gradcam import explain
from svetlana_jupyter.learn.networks import SmallCNN, Standardize, TorchvisionNetwork, load_torchvision, to_onednn
from svetlana_jupyter.learn.training import FitResult, fit
from tests.learn.conftest import two_classes
from tests.learn.test_training import QUICK, accuracy, trained


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(("depth", "width"), [(1, 4), (2, 16), (3, 2)])
@pytest.mark.parametrize("side", [5, 12])
def test_any_depth_width_and_side_gives_finite_logits_for_a_batch_of_one(ndim, depth, width, side):
    network = SmallCNN(ndim, channels=3, classes=4, depth=depth, width=width).eval()
    logits = network(torch.zeros(1, 3, *[side] * ndim))
    assert logits.shape == (1, 4)
    assert torch.isfinite(logits).all()


def test_depth_three_and_width_sixteen_is_the_network_of_the_papers_figure_7():
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


def test_standardizing_leaves_a_flat_channel_as_it_is():
    layer = Standardize(2)
    patches = torch.stack([torch.full((4, 4), 3.0), torch.arange(16.0).reshape(4, 4)])[None]
    layer.measure(patches)
    out = layer(patches)
    assert torch.equal(out[0, 0], torch.zeros(4, 4))
    assert out[0, 1].std(correction=0) == pytest.approx(1.0)


CPU = torch.device("cpu")


def _trained(ndim: int, channels: int, depth: int, width: int) -> SmallCNN:
    """Return a network whose averages, scales and shifts are those of no other, some scales negative."""
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
def test_packed_network_gives_the_logits_of_the_network(ndim, depth, width, side, channels, n):
    network = _trained(ndim, channels, depth, width)
    patches = 3 * torch.randn(n, channels, *[side] * ndim) + 1
    network.standardize.measure(patches)
    packed = to_onednn(network, CPU)
    with torch.inference_mode():
        torch.testing.assert_close(packed(patches), network(patches), rtol=1e-5, atol=1e-5)
        flipped = patches.flip(-1).transpose(-1, -2)
        torch.testing.assert_close(packed(flipped), network(flipped), rtol=1e-5, atol=1e-5)


def test_other_networks_and_devices_have_no_packed_form():
    assert to_onednn(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), CPU) is None
    assert to_onednn(SmallCNN(2, 1, 2, 1, 1), torch.device("meta")) is None
    grouped = build_network(TrainingSettings(norm="group"), 2, 1, 2)
    assert isinstance(grouped, SmallCNN)
    assert to_onednn(grouped, CPU) is None


def test_packed_network_does_not_follow_what_the_network_learns_later():
    network = _trained(2, 1, 1, 4)
    patches = torch.randn(2, 1, 8, 8)
    packed = to_onednn(network, CPU)
    before = packed(patches)
    network.standardize.measure(9 * patches)
    with torch.no_grad():
        for values in network.parameters():
            values.zero_()
    assert torch.equal(packed(patches), before)


FAMILIES = ["resnet18", "densenet121", "alexnet"]
FEW = QUICK.changed(epochs=1, steps=2, batch_size=4, learning_rate=0.0001)


def patch_settings_for_object(name: str, **changes) -> TrainingSettings:
    settings = FEW.changed(architecture=name, **changes)
    return settings.changed(patches={"sampling": settings.min_patch_side})


def bundle(name: str):
    return type(load_torchvision().models.get_model_weights(name).DEFAULT)


def few(part, count: int = 4):
    found, objects, classes = part
    return found, objects, classes.groupby(classes).head(count)


@pytest.mark.parametrize("name", TORCHVISION_ARCHITECTURES)
def test_every_published_network_takes_any_number_of_channels_and_classes(name):
    torch.manual_seed(0)
    with torch.device("meta"):  # shapes alone: the largest have millions of weights
        network = TorchvisionNetwork(name, channels=5, classes=7).eval()
        logits = network(torch.zeros(2, 5, *[QUICK.changed(architecture=name).min_patch_side] * 2))
    assert logits.shape == (2, 7)
    assert dict(network.named_parameters())[network.first_conv_weight].shape[1] == 5
    assert network.last_layer.out_features == 7


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_gives_the_same_weights_twice_and_comes_back_from_its_folder(discs, name, tmp_path):
    samples = collect_training_data([few(discs)], patch_settings_for_object(name))
    first, second = trained(samples), trained(samples)
    for key, values in first.classifier.tensors().items():
        np.testing.assert_array_equal(values, second.classifier.tensors()[key])
    first.classifier.save(tmp_path)
    _, inputs = next(first.classifier.cut(discs[0], discs[1][:5]))
    np.testing.assert_allclose(load_classifier(tmp_path).classify(inputs), first.classifier.classify(inputs), atol=1e-5)
    seen = explain(discs[0], discs[1], int(discs[2].index[0]), first.classifier)
    assert 0 <= float(seen["cam"].min()) <= float(seen["cam"].max()) <= 1


def test_a_resnet_learns_from_a_few_annotations(discs):
    assert (
        accuracy(
            trained(
                collect_training_data(
                    [few(discs)], patch_settings_for_object("resnet18", epochs=4, steps=6, learning_rate=0.001)
                )
            ),
            discs,
        )
        >= 0.9
    )


def test_a_grouped_resnet_keeps_no_averages(discs):
    network = build_network(patch_settings_for_object("resnet18", norm="group"), 2, 3, 2)
    assert not any("running" in key for key in network.state_dict())


@pytest.mark.parametrize("name", FAMILIES)
def test_patches_smaller_than_its_strides_are_refused_with_what_it_needs(discs, name):
    settings = patch_settings_for_object(name)
    side = settings.min_patch_side
    samples = collect_training_data([discs], settings.changed(patches={"sampling": side - 1}))
    with pytest.raises(SettingsError, match=rf"{name} needs at least {side}.*\"sampling\": {side}"):
        fit(samples)


@pytest.mark.parametrize("name", FAMILIES)
def test_patches_that_are_sampled_automatically_are_as_fine_as_it_needs(discs, name):
    settings = patch_settings_for_object(name).changed(patches={"sampling": None})
    samples = collect_training_data([discs], settings)
    usual = collect_training_data([discs], QUICK.changed(patches={"sampling": None})).settings.patches
    assert samples.settings.patches.size == usual.size
    assert samples.settings.patches.sampling == (settings.min_patch_side,) * 2 != usual.sampling
    *_, last = fit(samples)
    assert isinstance(last, FitResult)


def test_volumes_are_refused(balls):
    samples = collect_training_data([balls], QUICK.changed(architecture="resnet18", patches={"sampling": 32}))
    with pytest.raises(SettingsError, match=r"resnet18 is for 2D images only.*small_cnn"):
        fit(samples)


def published_weights(name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return load_torchvision().models.get_model(name, weights=None).state_dict()


@pytest.mark.parametrize("channels", [1, 3])
def test_published_weights_are_taken_and_the_rest_is_told(channels, monkeypatch):
    asked = []

    def fetch(self, **options):
        asked.append(options)
        return published_weights("resnet18")

    monkeypatch.setattr(bundle("resnet18"), "get_state_dict", fetch)
    part = few(two_classes(2, channels=channels))
    samples = collect_training_data([part], patch_settings_for_object("resnet18", pretrained=True, body="frozen"))
    fitted = trained(samples)
    assert asked == [{"progress": False, "check_hash": True, "weights_only": True}]
    note, *_ = fitted.notes
    assert "of the published resnet18; newly initialized: body.fc.weight (1000 × 512 there, 2 × 512 here)" in note
    weights, given = fitted.classifier.module.cpu().body.state_dict(), published_weights("resnet18")
    assert torch.equal(weights["layer3.1.conv2.weight"], given["layer3.1.conv2.weight"])
    # The same picture in every channel gives what it gave in red, green and blue.
    torch.testing.assert_close(weights["conv1.weight"].sum(1), given["conv1.weight"].sum(1), rtol=1e-4, atol=1e-5)
    if channels == 3:  # twice red, green and blue, then the mask
        ratio = weights["conv1.weight"][:, :6] / given["conv1.weight"].repeat(1, 2, 1, 1)
        torch.testing.assert_close(ratio, torch.full_like(ratio, 3 / 7))


def test_the_old_names_of_a_densenet_are_understood(monkeypatch):
    given = published_weights("densenet121")
    old = {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.") if "denselayer" in key else key: values
        for key, values in given.items()
    }
    assert old.keys() != given.keys()
    monkeypatch.setattr(bundle("densenet121"), "get_state_dict", lambda self, **options: old)
    samples = collect_training_data(
        [few(two_classes(2))], patch_settings_for_object("densenet121", pretrained=True, epochs=1, steps=1)
    )
    note, *_ = trained(samples).notes
    assert note.endswith(
        "newly initialized: body.classifier.weight (1000 × 1024 there, 2 × 1024 here), "
        "body.classifier.bias (1000 there, 2 here)."
    )


def test_weights_that_cannot_be_fetched_are_a_sentence_before_training(discs, monkeypatch):
    def offline(self, **options):
        raise URLError("no route to host")

    monkeypatch.setattr(bundle("resnet18"), "get_state_dict", offline)
    samples = collect_training_data([few(discs)], patch_settings_for_object("resnet18", pretrained=True))
    with pytest.raises(InputError, match=r"could not be downloaded from https://.*no route to host.*pretrained=False"):
        fit(samples)


def test_nothing_is_fetched_without_being_asked(discs, monkeypatch, tmp_path):
    def fetch(self, **options):
        raise AssertionError("fetched")

    monkeypatch.setattr(bundle("resnet18"), "get_state_dict", fetch)
    samples = collect_training_data([few(discs)], patch_settings_for_object("resnet18", epochs=1, steps=1))
    fitted = trained(samples)
    specification = fitted.classifier.specification
    described = type(specification)(
        **{**vars(specification), "settings": specification.settings.changed(pretrained=True)}
    )
    fitted.classifier.specification = described
    fitted.classifier.save(tmp_path)
    assert load_classifier(tmp_path).specification.settings.pretrained  # weights lie beside it already


def test_pretrained_is_refused_where_nobody_published_any(discs):
    with pytest.raises(SettingsError, match=r"not for 'small_cnn'.*start_from"):
        fit(collect_training_data([discs], QUICK.changed(pretrained=True)))
