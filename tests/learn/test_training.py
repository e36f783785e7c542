"""Training: accuracy, reproducibility, stopping and validation of the input."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from svetlana_jupyter.core.settings import AugmentSettings, TrainingSettings
from svetlana_jupyter.errors import ClassifierError, InputError, SettingsError
from svetlana_jupyter.learn import training as fitting
from svetlana_jupyter.learn.augmentation import Augmenter, center_crop
from svetlana_jupyter.learn.dataset import TrainingData, WorkProgress, collect_for_each
from svetlana_jupyter.learn.training import Batch, Epoch, FitResult, fit
from tests.learn.calls import collect_training_data, cut

QUICK = TrainingSettings(epochs=6, steps=5, batch_size=8, depth=2, width=4, patches={"sampling": 12})


def trained(samples: TrainingData, **changes) -> FitResult:
    (*_, last) = fit(with_settings(samples, **changes))
    assert isinstance(last, FitResult)
    return last


def with_settings(samples: TrainingData, **changes) -> TrainingData:
    return TrainingData(**{**vars(samples), "settings": samples.settings.changed(**changes)})


def assert_same_weights(first: FitResult, second: FitResult) -> None:
    expected, actual = first.classifier.tensors(), second.classifier.tensors()
    assert expected.keys() == actual.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(values, actual[name])


def accuracy(fitted: FitResult, annotated_image) -> float:
    pair, objects, classes = annotated_image
    right = [
        np.array(fitted.classifier.classes)[fitted.classifier.classify(inputs).argmax(axis=1)] == classes.loc[labels]
        for labels, inputs in cut(fitted.classifier, pair, objects)
    ]
    return float(np.concatenate(right).mean())


@pytest.mark.parametrize("architecture", ["small_cnn", "forest", "live"])
def test_either_classifier_learns_bright_and_dark_from_a_few_annotations(annotated_image, architecture):
    pair, objects, classes = annotated_image
    few_classes = classes.groupby(classes).head(5)
    fitted = trained(
        collect_training_data([(pair, objects, few_classes)], QUICK.changed(architecture=architecture, trees=30))
    )
    assert accuracy(fitted, annotated_image) >= 0.95
    assert fitted.n == 10
    assert fitted.classifier.classes == (4, 7)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "l1", "smooth_l1", "mse"])
@pytest.mark.parametrize(("optimizer", "schedule"), [("adamw", "one_cycle"), ("adam", "step"), ("adam", "constant")])
def test_every_loss_and_schedule_learns(discs, loss, optimizer, schedule):
    fitted = trained(collect_training_data([discs], QUICK), loss=loss, optimizer=optimizer, schedule=schedule)
    assert accuracy(fitted, discs) >= 0.95


@pytest.mark.parametrize("rotation", ["right_angles", "free"])
def test_the_same_settings_and_seed_give_the_same_weights(annotated_image, rotation):
    settings = QUICK.changed(augmentation={"rotation": rotation, "scale": 0.1}, epochs=2)
    first, second = (trained(collect_training_data([annotated_image], settings)) for _ in range(2))
    assert_same_weights(first, second)
    other = trained(collect_training_data([annotated_image], settings.changed(seed=1)))
    with pytest.raises(AssertionError, match="Arrays are not equal"):
        assert_same_weights(first, other)


def test_training_leaves_the_global_random_state_and_the_samples_alone(discs):
    samples = collect_training_data([discs], QUICK)
    before, inputs = torch.get_rng_state(), samples.inputs.copy()
    trained(samples)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(samples.inputs, inputs)


def test_training_does_not_depend_on_chunks(discs):
    pair, objects, classes = discs
    chunked = type(pair)(pair.name, pair.image.chunk({"y": 13, "x": 29}), pair.mask.chunk({"y": 13, "x": 29}))
    one, other = (collect_training_data([(other_pair, objects, classes)], QUICK) for other_pair in (pair, chunked))
    np.testing.assert_array_equal(one.objects, other.objects)
    np.testing.assert_allclose(one.inputs, other.inputs, atol=1e-5)


@pytest.mark.parametrize(
    ("pipeline", "calls"), [(None, [24, 16]), ({"transform": {"__class_fullname__": "NoOp", "p": 1.0}}, [8] * 5)]
)
def test_several_batches_are_augmented_at_once_and_keep_their_samples(discs, monkeypatch, pipeline, calls):
    still = {"flips": False, "rotation": "none", "brightness": 0.0, "noise": 0.0, "pipeline": pipeline}
    samples = collect_training_data([discs], QUICK.changed(augmentation=still, epochs=1))
    monkeypatch.setattr(fitting, "MAX_AUGMENTED_VALUES", 3 * 8 * samples.inputs[0].size + 1)
    steps, augmented = [], []
    step, call = fitting._NetworkTraining._step, Augmenter.__call__

    def recording_step(self, chosen, patches):
        steps.append((samples.inputs[chosen], patches.numpy()))
        return step(self, chosen, patches)

    def count_read(self, patches, generator):
        augmented.append(len(patches))
        return call(self, patches, generator)

    monkeypatch.setattr(fitting._NetworkTraining, "_step", recording_step)
    monkeypatch.setattr(Augmenter, "__call__", count_read)
    trained(samples)
    assert augmented == calls
    assert len(steps) == 5
    for expected, actual in steps:
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-6)  # a pipeline rescales the values and back


def test_events_count_batches_and_epochs_and_end_with_the_classifier(discs):
    events = list(fit(collect_training_data([discs], QUICK)))
    batches = [(event.epoch, event.batch) for event in events if isinstance(event, Batch)]
    assert batches == [(epoch, batch) for epoch in range(1, 7) for batch in range(1, 6)]
    epochs = [event for event in events if isinstance(event, Epoch)]
    assert [event.epoch for event in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].loss < epochs[0].loss
    last = events[-1]
    assert isinstance(last, FitResult)
    assert not last.stopped
    assert last.history == tuple(epochs)
    assert [entry["loss"] for entry in last.classifier.specification.history] == [event.loss for event in epochs]


def test_few_annotations_are_all_used_for_training_and_many_are_held_out_by_whole_groups(discs):
    samples = collect_training_data([discs], QUICK)
    assert trained(samples).score is None
    fitted = trained(samples, held_out_from=20)
    assert fitted.n < len(samples)
    assert fitted.score is not None
    assert fitted.score >= 0.9
    assert fitted.history[-1].score == fitted.score
    # An epoch costs as much as 120 forward passes and scoring 49; every fifth epoch is less than a tenth.
    assert [epoch.epoch for epoch in fitted.history if epoch.score is not None] == [5, 6]
    often = trained(samples, held_out_from=20, steps=25, epochs=2)
    assert all(epoch.score is not None for epoch in often.history)


def test_stopping_between_batches_returns_the_current_network(discs):
    calls = []

    def stop() -> bool:
        calls.append(True)
        return len(calls) > 8

    events = list(fit(collect_training_data([discs], QUICK), stop))
    assert sum(isinstance(event, Batch) for event in events) == 8
    last = events[-1]
    assert isinstance(last, FitResult)
    assert last.stopped
    assert [epoch.epoch for epoch in last.history] == [1, 2]


def test_stopping_keeps_the_best_scored_epoch(discs):
    samples = with_settings(collect_training_data([discs], QUICK), held_out_from=20, epochs=20, steps=25)
    epochs: list[Epoch] = []
    for event in fit(samples, stop=lambda: len(epochs) >= 4):
        if isinstance(event, Epoch):
            epochs.append(event)
    assert isinstance(event, FitResult)
    assert event.score == max(epoch.score for epoch in epochs[:4])


def test_stopping_before_the_first_batch_gives_a_usable_classifier(discs):
    (last,) = fit(collect_training_data([discs], QUICK), stop=lambda: True)
    assert isinstance(last, FitResult)
    assert last.stopped
    assert last.history == ()
    assert np.isfinite(last.classifier.classify(np.zeros((1, 3, 12, 12), np.float32))).all()


def test_closing_the_generator_ends_training(discs):
    running = fit(collect_training_data([discs], QUICK))
    assert isinstance(next(running), Batch)
    running.close()
    assert list(running) == []


def test_a_nan_loss_raises_a_helpful_error(discs):
    samples = collect_training_data([discs], QUICK)
    samples.inputs[:] = np.inf
    with pytest.raises(ClassifierError, match="Set a learning_rate below"):
        list(fit(samples))


def test_one_training_step_is_enough_for_batch_norm_statistics(discs):
    fitted = trained(collect_training_data([discs], QUICK), epochs=1, steps=1)
    norm = fitted.classifier.module.blocks[0][2]
    assert (norm.running_mean != 0).any()
    assert (norm.running_var != 1).any()


def test_fewer_than_two_classes_are_refused_before_reading_pixels(discs):
    pair, objects, classes = discs
    with pytest.raises(InputError, match="none yet"):
        collect_training_data([(pair, objects, classes[:0])], QUICK)
    with pytest.raises(InputError, match="only one class"):
        collect_training_data([(pair, objects, classes[classes == 4])], QUICK)
    samples = collect_training_data([discs], QUICK)
    with pytest.raises(InputError, match="only one class"):
        fit(samples.subset(samples.targets == 4))


def test_one_annotation_of_each_class_is_enough_to_train(discs):
    pair, objects, classes = discs
    fitted = trained(collect_training_data([(pair, objects, classes.groupby(classes).head(1))], QUICK), epochs=1)
    assert fitted.n == 2


def test_annotations_of_missing_objects_and_mixed_images_are_refused(discs, balls):
    pair, objects, classes = discs
    with_missing_object = pd.concat([classes, pd.Series([4], index=[999])])
    with pytest.raises(InputError, match="no object 999"):
        collect_training_data([(pair, objects, with_missing_object)], QUICK)
    with pytest.raises(InputError, match="same dimensions and channels"):
        collect_training_data([discs, balls], QUICK)


def test_patches_that_exceed_the_memory_are_refused_with_a_smaller_sampling(discs, monkeypatch):
    monkeypatch.setattr("svetlana_jupyter.learn.dataset.MAX_BYTES", 10_000)
    with pytest.raises(InputError, match="smaller sampling, for example 8"):
        collect_training_data([discs], QUICK)


def test_class_weights_must_name_classes(discs):
    samples = collect_training_data([discs], QUICK, names={4: "dark", 7: "bright"})
    for key in (99, "grey"):
        with pytest.raises(SettingsError, match=rf"{key!r}, but the annotated classes are 'dark' \(4\), 'bright'"):
            fit(with_settings(samples, class_weights={key: 2.0}))


def test_collection_reports_progress_and_returns_samples_in_object_order(discs):
    *steps, (samples,) = collect_for_each([discs], [QUICK])
    assert all(isinstance(step, WorkProgress) for step in steps)
    assert steps[-1] == WorkProgress(len(discs[2]), len(discs[2]))
    assert isinstance(samples, TrainingData)
    np.testing.assert_array_equal(samples.objects, discs[2].index)
    np.testing.assert_array_equal(samples.targets, discs[2])


def test_groups_are_grouping_columns_or_images_or_regions(discs):
    pair, objects, classes = discs
    other = type(pair)("other", pair.image, pair.mask, {"plate": "P1", "well": "B2"})
    assert set(collect_training_data([(other, objects, classes), discs], QUICK).groups) == {"plate=P1 well=B2", "cells"}
    assert len(set(collect_training_data([discs], QUICK).groups)) == 16


def test_augmentation_settings_reach_the_patches(discs):
    with_margin = collect_training_data([discs], QUICK.changed(augmentation=AugmentSettings(rotation="free")))
    assert with_margin.inputs.shape[-1] > 12
    assert accuracy(trained(with_margin), discs) >= 0.95


def test_collecting_for_several_settings_equals_collecting_separately(annotated_image):
    several = [
        QUICK,
        QUICK.changed(augmentation={"rotation": "free"}),
        QUICK.changed(patches={"context": "hide", "normalize": "object"}, augmentation={"rotation": "free"}),
        QUICK.changed(architecture="forest"),
    ]
    *steps, collected = collect_for_each([annotated_image], several)
    assert (steps[-1].done, steps[-1].total) == (2 * len(annotated_image[2]), 2 * len(annotated_image[2]))
    assert collected[0].inputs is collected[1].inputs
    for settings, samples in zip(several, collected, strict=True):
        alone = collect_training_data([annotated_image], settings)
        assert samples.settings == alone.settings
        np.testing.assert_array_equal(samples.targets, alone.targets)
        inputs, own = samples.inputs, alone.inputs
        if settings.architecture != "forest":
            shape = own.shape[2:]
            inputs = center_crop(torch.from_numpy(inputs), shape).numpy()
        np.testing.assert_allclose(inputs, own, rtol=1e-5, atol=1e-5)
