"""Failures during training: out of memory, divergence and early stopping."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import ClassifierError, SettingsError
from svetlana_jupyter.learn import training as fitting
from svetlana_jupyter.learn.device import choose_device, is_out_of_memory
from svetlana_jupyter.learn.training import BestWeights, Epoch, FitResult, TrainingNote, fit
from tests.learn.calls import collect_training_data
from tests.learn.networks import Failing
from tests.learn.test_training import QUICK, accuracy, assert_same_weights, trained, with_settings

OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
CPU_OUT_OF_MEMORY = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried"
)


@pytest.fixture
def failing(monkeypatch) -> Failing:
    monkeypatch.setattr(Failing, "errors", [])
    return Failing(3, 2)


@pytest.mark.parametrize("error", [OUT_OF_MEMORY, CPU_OUT_OF_MEMORY, MemoryError()], ids=["GPU", "CPU", "Python"])
def test_out_of_memory_halves_the_batch_size_once_and_is_reported(discs, failing, error):
    samples = collect_training_data([discs], QUICK)
    Failing.errors[:] = [error]
    note, *rest = fit(samples, network=failing)
    assert note == TrainingNote("Memory ran out with batches of 8 patches; training started again with batches of 4.")
    assert not any(isinstance(event, TrainingNote) for event in rest)
    last = rest[-1]
    assert isinstance(last, FitResult)
    assert last.notes == (note.text,)
    assert last.classifier.specification.settings.batch_size == 4
    *_, plain = fit(with_settings(samples, batch_size=4), network=failing)
    assert_same_weights(plain, last)


def test_repeated_out_of_memory_raises_a_helpful_error(discs, failing):
    Failing.errors[:] = [OUT_OF_MEMORY, OUT_OF_MEMORY]
    with pytest.raises(ClassifierError, match=r"batches of 8 patches, and again with 4: .*2\.00 GiB.*smaller"):
        list(fit(collect_training_data([discs], QUICK), network=failing))
    assert Failing.errors == []


@pytest.mark.parametrize("size", [1, 2])
def test_the_smallest_batches_are_not_tried_again(discs, failing, size):
    Failing.errors[:] = [OUT_OF_MEMORY, OUT_OF_MEMORY]
    samples = with_settings(collect_training_data([discs], QUICK), batch_size=size, norm="group")
    with pytest.raises(ClassifierError, match=rf"with batches of {size} patches: .*2\.00 GiB.*smaller sampling"):
        list(fit(samples, network=failing))
    assert Failing.errors == [OUT_OF_MEMORY], "it was trained once"


@pytest.mark.parametrize("error", [RuntimeError("a bug of the user's own"), ValueError("batch"), KeyboardInterrupt()])
def test_other_errors_are_raised_unchanged(discs, failing, error):
    Failing.errors[:] = [error]
    with pytest.raises(type(error)) as caught:
        list(fit(collect_training_data([discs], QUICK), network=failing))
    assert caught.value is error


def test_out_of_memory_errors_are_recognized():
    assert all(
        map(
            is_out_of_memory,
            (OUT_OF_MEMORY, CPU_OUT_OF_MEMORY, MemoryError(), RuntimeError("MPS backend out of memory")),
        )
    )
    assert not any(map(is_out_of_memory, (RuntimeError("size mismatch"), ValueError("out of memory"), OSError())))


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_immediate_divergence_raises_a_helpful_error(discs, preset):
    settings = TrainingSettings(preset=preset, epochs=6, steps=5, batch_size=8, depth=2, width=4).changed(
        patches={"sampling": 12}, learning_rate=10.0, schedule="constant"
    )
    with pytest.raises(ClassifierError, match=r"Training diverged after \d+ epochs.*Set a learning_rate below 10"):
        list(fit(collect_training_data([discs], settings)))


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "l1", "smooth_l1", "mse"])
@pytest.mark.parametrize(("learning_rate", "reported"), [(1e-6, True), (0.01, False)])
def test_training_at_chance_level_is_reported(discs, loss, learning_rate, reported):
    samples = collect_training_data([discs], QUICK.changed(loss=loss, learning_rate=learning_rate, schedule="constant"))
    *_, last = fit(samples)
    assert isinstance(last, FitResult)
    assert [note.startswith("Nothing was learned") for note in last.notes] == [True] * reported
    assert all(f"learning_rate other than {learning_rate:g}" in note for note in last.notes)


def test_a_high_loss_alone_does_not_count_as_chance_level(discs):
    samples = collect_training_data(
        [discs], QUICK.changed(label_smoothing=0.8)
    )  # the minimum loss is 0.97 of that at chance level
    *_, last = fit(samples)
    assert last.history[-1].loss > 0.96 * np.log(2)
    assert last.notes == ()
    assert accuracy(last, discs) >= 0.95


def set_losses(monkeypatch, steps: range, value: float) -> None:
    """Replace the loss of the given steps by a value."""
    step, count = fitting._NetworkTraining._step, iter(range(1, 10**6))

    def modified_step(self, chosen, patches):
        loss = step(self, chosen, patches)
        return value if next(count) in steps else loss

    monkeypatch.setattr(fitting._NetworkTraining, "_step", modified_step)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
@pytest.mark.parametrize("held_out_from", [20, 400])
def test_later_divergence_keeps_the_best_epoch_and_is_reported(discs, monkeypatch, value, held_out_from):
    samples = with_settings(collect_training_data([discs], QUICK), epochs=8, steps=25, held_out_from=held_out_from)
    set_losses(monkeypatch, range(4 * 25 + 3, 10**6), value)
    events = list(fit(samples))
    last, note = events[-1], events[-2]
    assert isinstance(last, FitResult)
    assert isinstance(note, TrainingNote)
    done = 6 if np.isfinite(value) else 4  # a finite loss gets a second chance
    assert note.text.startswith(f"Training diverged after {done} epochs:")
    assert last.notes == (note.text,)
    assert "The network of epoch" in note.text
    assert "epoch 5" not in note.text
    assert "epoch 6" not in note.text
    assert [epoch.epoch for epoch in last.history] == list(range(1, done + 1))
    assert not last.stopped
    assert accuracy(last, discs) >= 0.95
    scores = [epoch.score for epoch in last.history[:4] if epoch.score is not None]
    assert last.score == (max(scores) if held_out_from == 20 else None)


@pytest.mark.parametrize("held_out_from", [20, 400])
def test_the_returned_network_has_the_weights_of_the_best_epoch(discs, monkeypatch, held_out_from):
    samples = with_settings(collect_training_data([discs], QUICK), epochs=8, steps=25, held_out_from=held_out_from)
    set_losses(monkeypatch, range(4 * 25 + 1, 10**6), 1e6)
    step, weights = fitting._NetworkTraining._step, []

    def recording_step(self, chosen, patches):
        loss = step(self, chosen, patches)
        weights.append(self.network.head.weight.detach().clone())
        return loss

    monkeypatch.setattr(fitting._NetworkTraining, "_step", recording_step)
    *_, last = fit(samples)
    (best,) = [epoch for epoch in range(1, 5) if f"network of epoch {epoch} is kept" in last.notes[-1]]
    head = last.classifier.module.head.weight
    assert torch.equal(head, weights[25 * best - 1])
    assert not torch.equal(head, weights[-1])


def test_a_temporary_rise_of_the_loss_is_not_divergence(discs, monkeypatch):
    set_losses(monkeypatch, range(11, 16), 1e6)
    fitted = trained(collect_training_data([discs], QUICK))
    assert fitted.notes == ()
    assert len(fitted.history) == 6


def test_a_diverging_last_epoch_is_not_kept(discs, monkeypatch):
    set_losses(monkeypatch, range(26, 31), 1e6)
    (note,) = trained(collect_training_data([discs], QUICK)).notes
    assert note.startswith("Training diverged after 6 epochs")
    assert "network of epoch 5 is kept" in note


def test_nan_weights_are_never_kept(discs, monkeypatch):
    samples = with_settings(collect_training_data([discs], QUICK), epochs=4)
    step, count = fitting._NetworkTraining._step, iter(range(1, 100))

    def modified_step(self, chosen, patches):
        loss = step(self, chosen, patches)
        if next(count) == 15:  # the last step of epoch 3, whose loss is still finite
            self.network.head.bias.data[0] = torch.nan
        return loss

    monkeypatch.setattr(fitting._NetworkTraining, "_step", modified_step)
    *_, note, last = fit(samples)
    assert "diverged after 2 epochs" in note.text
    assert all(np.isfinite(values).all() for values in last.classifier.tensors().values())


def test_patience_monitors_the_loss_without_a_validation_split(discs):
    samples = with_settings(collect_training_data([discs], QUICK), epochs=500, patience=3, schedule="constant")
    *_, note, last = fit(samples)
    losses = [epoch.loss for epoch in last.history]
    assert len(losses) < 500
    assert not last.stopped
    assert int(np.argmin(losses)) == len(losses) - 4
    assert note.text == (
        f"No improvement for 3 epochs: training ended after {len(losses)} of 500 epochs with the network of epoch "
        f"{len(losses) - 3}."
    )


def test_patience_monitors_the_validation_score_and_keeps_the_best_epoch(discs):
    samples = with_settings(collect_training_data([discs], QUICK), epochs=500, patience=3, steps=25, held_out_from=20)
    *_, note, last = fit(samples)
    scores = [epoch.score for epoch in last.history]
    assert int(np.argmax(scores)) == len(scores) - 4  # the first of the best epochs: ties are no improvement
    assert last.score == max(scores)
    assert "No improvement for 3 epochs" in note.text


def test_without_patience_every_epoch_is_trained(discs):
    assert len(trained(collect_training_data([discs], QUICK), epochs=30).history) == 30


def test_the_best_epoch_has_the_best_score_then_loss_and_is_the_latest_of_equals():
    network = torch.nn.Linear(1, 1)
    best, states = BestWeights(network), []
    for epoch, (loss, score) in enumerate(
        [(1.0, None), (0.5, None), (0.7, None), (3.0, 0.6), (0.1, None), (2.0, 0.6)], 1
    ):
        network.bias.data[:] = epoch
        best.update(epoch, loss, score)
        states.append((best.epoch, best.last_improvement, best.score))
    assert states == [(1, 1, None), (2, 2, None), (2, 2, None), (4, 4, 0.6), (4, 4, 0.6), (6, 4, 0.6)]
    network.bias.data[:] = 0
    best.restore()
    assert network.bias.item() == 6


def test_batches_of_one_are_refused_with_batch_norm(discs):
    samples = collect_training_data([discs], QUICK.changed(batch_size=1, steps=40))
    with pytest.raises(SettingsError, match='at least 2, or norm="group"'):
        fit(samples)
    assert accuracy(trained(samples, norm="group"), discs) >= 0.95


@pytest.mark.parametrize("depth", [4, 8])
def test_too_small_patches_are_refused_with_a_suitable_depth(discs, depth):
    samples = collect_training_data([discs], QUICK.changed(depth=depth))
    with pytest.raises(
        SettingsError, match=rf"12 × 12 pixels, but {depth} blocks .*need at least {2**depth}.*at most 3"
    ):
        fit(samples)
    trained(with_settings(samples, depth=3, epochs=1))


def test_the_best_available_device_is_selected(monkeypatch):
    for accelerator, ndim, expected in (
        ("cuda", 2, "cuda"),
        ("cuda", 3, "cuda"),
        ("mps", 2, "mps"),
        ("mps", 3, "cpu"),
        ("xpu", 2, "cpu"),
        (None, 2, "cpu"),
    ):
        device = torch.device(accelerator) if accelerator else None
        monkeypatch.setattr(torch.accelerator, "is_available", lambda device=device: device is not None)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda device=device: device)
        assert choose_device("auto", ndim).type == expected


@pytest.mark.parametrize("epoch_count", [1, 2])
def test_each_epoch_is_scored_once(discs, epoch_count, monkeypatch):
    scored_with_current_statistics = []
    score = fitting._NetworkTraining._balanced_accuracy
    monkeypatch.setattr(
        fitting._NetworkTraining,
        "_balanced_accuracy",
        lambda self, objects: scored_with_current_statistics.append(self.batch_norm_is_current) or score(self, objects),
    )
    samples = with_settings(collect_training_data([discs], QUICK), epochs=epoch_count, steps=25, held_out_from=20)
    events = list(fit(samples))
    assert scored_with_current_statistics == [True] * epoch_count
    assert events[-1].score == [event for event in events if isinstance(event, Epoch)][-1].score
