"""Running averages are those of the patches they were taken from; group normalisation does without."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.learn.averages import batch_norm_layers, replace_batch_norm, update_batch_norm
from svetlana_jupyter.learn.building import build_network


def network(ndim: int = 2, **values) -> nn.Module:
    torch.manual_seed(0)
    return build_network(TrainingSettings(depth=2, width=4, **values), ndim, 2, 3)


def patches(count: int, seed: int = 0) -> torch.Tensor:
    return 5 + 3 * torch.randn(count, 2, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_settled_averages_are_mean_and_variance_of_what_each_layer_sees():
    one = network()
    update_batch_norm(one, [patches(32)])
    seen = one.blocks[0][:2](one.standardize(patches(32)))
    first, second = batch_norm_layers(one)
    torch.testing.assert_close(first.running_mean, seen.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(first.running_var, seen.var(dim=(0, 2, 3)))
    deeper = one.blocks[1][:2](one.blocks[0](one.standardize(patches(32))))
    torch.testing.assert_close(second.running_mean, deeper.mean(dim=(0, 2, 3)), rtol=2e-3, atol=1e-5)


def test_settling_forgets_what_was_before_and_weighs_all_batches_alike():
    one, other = network(), network()
    update_batch_norm(one, [patches(8, seed=9)])
    for each in (one, other):
        update_batch_norm(each, [patches(8, seed=1), patches(8, seed=2)])
    for name, values in one.state_dict().items():
        assert torch.equal(values, other.state_dict()[name])
    assert all(layer.momentum == 0.1 and not layer.training for layer in batch_norm_layers(one))


def test_dropout_sleeps_while_averages_settle():
    dropping = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(2))
    update_batch_norm(dropping, [patches(16)])
    torch.testing.assert_close(dropping[1].running_mean, patches(16).mean(dim=(0, 2, 3)))


@pytest.mark.parametrize("ndim", [2, 3])
def test_group_normalisation_has_no_averages_and_treats_each_patch_by_itself(ndim):
    one = network(ndim, norm="group")
    assert batch_norm_layers(one) == [] and batch_norm_layers(network(ndim)) != []
    some = torch.randn(4, 2, *[8] * ndim)
    one.train()
    torch.testing.assert_close(one(some)[:1], one(some[:1]))
    assert set(one.state_dict()) == {name for name in network(ndim).state_dict() if ".running_" not in name} - {
        f"blocks.{block}.2.num_batches_tracked" for block in range(2)
    }


def test_gain_and_offset_survive_the_change_to_groups():
    layers = nn.Sequential(nn.BatchNorm2d(6))
    layers[0].weight.data[:], layers[0].bias.data[:] = torch.arange(6.0), torch.arange(6.0, 12.0)
    replace_batch_norm(layers)
    assert isinstance(layers[0], nn.GroupNorm) and layers[0].num_groups == 2
    assert torch.equal(layers[0].weight, torch.arange(6.0)) and torch.equal(layers[0].bias, torch.arange(6.0, 12.0))
