"""The packed form of a network gives the network's own logits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.learn.architectures import SmallCNN
from svetlana_jupyter.learn.building import build_network
from svetlana_jupyter.learn.packed import pack

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
    packed = pack(network, CPU)
    with torch.inference_mode():
        torch.testing.assert_close(packed(patches), network(patches), rtol=1e-5, atol=1e-5)
        flipped = patches.flip(-1).transpose(-1, -2)
        torch.testing.assert_close(packed(flipped), network(flipped), rtol=1e-5, atol=1e-5)


def test_other_networks_and_devices_have_no_packed_form():
    assert pack(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), CPU) is None
    assert pack(SmallCNN(2, 1, 2, 1, 1), torch.device("meta")) is None
    grouped = build_network(TrainingSettings(norm="group"), 2, 1, 2)
    assert isinstance(grouped, SmallCNN) and pack(grouped, CPU) is None


def test_packed_network_does_not_follow_what_the_network_learns_later():
    network = _trained(2, 1, 1, 4)
    patches = torch.randn(2, 1, 8, 8)
    packed = pack(network, CPU)
    before = packed(patches)
    network.standardize.measure(9 * patches)
    with torch.no_grad():
        for values in network.parameters():
            values.zero_()
    assert torch.equal(packed(patches), before)
