"""A training begins with what fits of another's weights, and says what it took and what not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from svetlana_jupyter.errors import ClassifierError, InputError
from svetlana_jupyter.learn import fit as fitting
from svetlana_jupyter.learn.averages import batch_norm_layers
from svetlana_jupyter.learn.events import FitResult
from svetlana_jupyter.learn.explain import explain
from svetlana_jupyter.learn.samples import collect_training_data
from svetlana_jupyter.learn.transfer import adapt_filters
from tests.learn.conftest import two_classes
from tests.learn.networks import Plain
from tests.learn.test_fit import QUICK, accuracy, trained
from tests.learn.test_userland import given

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
    assert after.notes == (f"Began with 14 of 14 weights of {folder}.",)
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
    assert note.startswith("Began with 13 of 20 weights of ")
    assert "begun anew: blocks.2.0.weight, blocks.2.0.bias, blocks.2.2.weight and 4 more." in note
    with pytest.raises(InputError, match=r"none of the weights of .* fits this network.*Choose the architecture"):
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
    assert after.notes[0].startswith("Began with 4 of 4 weights of ")
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
    step, modes = fitting._Training._step, []

    def watched(self, chosen, patches):
        loss = step(self, chosen, patches)
        modes.append((self.network.head.training, *(layer.training for layer in batch_norm_layers(self.network))))
        return loss

    monkeypatch.setattr(fitting._Training, "_step", watched)
    trained(collect_training_data([discs], QUICK.changed(body="frozen", epochs=1, steps=2)))
    trained(collect_training_data([discs], QUICK.changed(epochs=1, steps=1)))
    assert modes == [(True, False, False), (True, False, False), (True, True, True)]


def test_a_frozen_network_can_still_be_trained_on_and_explained(discs):
    fitted = trained(collect_training_data([discs], QUICK.changed(body="frozen", epochs=30, learning_rate=0.05)))
    assert accuracy(fitted, discs) >= 0.9
    seen = explain(discs[0], discs[1], int(discs[2].index[0]), fitted.classifier)
    assert np.isfinite(seen["cam"]).all() and float(seen["cam"].max()) > 0.5


def test_what_is_no_run_and_no_file_of_weights_is_refused_before_training(discs, tmp_path):
    trained(collect_training_data([discs], QUICK.changed(architecture="forest"))).classifier.save(tmp_path / "forest")
    (tmp_path / "model.pth").write_bytes(b"pickle")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    for name, error, words in (
        ("nowhere", InputError, "there is no "),
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
