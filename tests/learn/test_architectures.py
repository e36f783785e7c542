"""One description gives networks in 2D and 3D."""

from __future__ import annotations

import pytest
import torch

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.learn.architectures import SmallCNN, Standardize
from svetlana_jupyter.learn.building import build_network


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
