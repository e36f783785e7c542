"""Training learns, repeats itself exactly, stops when asked and says what it cannot do before it starts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from svetlana_jupyter.core.settings import AugmentSettings, TrainingSettings
from svetlana_jupyter.errors import ClassifierError, InputError, SettingsError
from svetlana_jupyter.learn import training as fitting
from svetlana_jupyter.learn.augmentation import Augmenter, center_crop
from svetlana_jupyter.learn.dataset import (
    CollectionProgress,
    TrainingData,
    collect_for_each,
    collect_training_data,
    collect_with_progress,
)
from svetlana_jupyter.learn.training import Batch, Epoch, FitResult, fit

QUICK = TrainingSettings(epochs=6, steps=5, batch_size=8, depth=2, width=4, patches={"sampling": 12})


def trained(samples: TrainingData, **changes) -> FitResult:
    (*_, last) = fit(with_settings(samples, **changes))
    assert isinstance(last, FitResult)
    return last


def with_settings(samples: TrainingData, **changes) -> TrainingData:
    return TrainingData(**{**vars(samples), "settings": samples.settings.changed(**changes)})


def accuracy(fitted: FitResult, part) -> float:
    found, objects, classes = part
    right = [
        np.array(fitted.classifier.classes)[fitted.classifier.classify(inputs).argmax(axis=1)] == classes.loc[labels]
        for labels, inputs in fitted.classifier.cut(found, objects)
    ]
    return float(np.concatenate(right).mean())


@pytest.mark.parametrize("architecture", ["small_cnn", "forest"])
def test_a_few_annotations_teach_either_classifier_to_tell_bright_from_dark(part, architecture):
    found, objects, classes = part
    few = classes.groupby(classes).head(5)
    fitted = trained(collect_training_data([(found, objects, few)], QUICK.changed(architecture=architecture, trees=30)))
    assert accuracy(fitted, part) >= 0.95
    assert fitted.n == 10
    assert fitted.classifier.classes == (4, 7)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "l1", "smooth_l1", "mse"])
@pytest.mark.parametrize(("optimizer", "schedule"), [("adamw", "one_cycle"), ("adam", "step"), ("adam", "constant")])
def test_every_loss_and_schedule_learns(discs, loss, optimizer, schedule):
    fitted = trained(collect_training_data([discs], QUICK), loss=loss, optimizer=optimizer, schedule=schedule)
    assert accuracy(fitted, discs) >= 0.95


@pytest.mark.parametrize("rotation", ["right_angles", "free"])
def test_the_same_settings_and_seed_give_the_same_weights(part, rotation):
    settings = QUICK.changed(augmentation={"rotation": rotation, "scale": 0.1}, epochs=2)
    first, second = (trained(collect_training_data([part], settings)) for _ in range(2))
    for name, values in first.classifier.tensors().items():
        np.testing.assert_array_equal(values, second.classifier.tensors()[name])
    other = trained(collect_training_data([part], settings.changed(seed=1)))
    assert any(
        (other.classifier.tensors()[name] != values).any() for name, values in first.classifier.tensors().items()
    )


def test_training_leaves_the_global_random_state_and_the_samples_alone(discs):
    samples = collect_training_data([discs], QUICK)
    before, inputs = torch.get_rng_state(), samples.inputs.copy()
    trained(samples)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(samples.inputs, inputs)


def test_how_a_file_is_chunked_does_not_change_what_is_trained(discs):
    found, objects, classes = discs
    chunked = type(found)(found.name, found.image.chunk({"y": 13, "x": 29}), found.mask.chunk({"y": 13, "x": 29}))
    one, other = (collect_training_data([(pair, objects, classes)], QUICK) for pair in (found, chunked))
    np.testing.assert_array_equal(one.objects, other.objects)
    np.testing.assert_allclose(one.inputs, other.inputs, atol=1e-5)


@pytest.mark.parametrize(
    ("pipeline", "calls"), [(None, [24, 16]), ({"transform": {"__class_fullname__": "NoOp", "p": 1.0}}, [8] * 5)]
)
def test_several_batches_are_varied_at_once_and_each_holds_its_samples(discs, monkeypatch, pipeline, calls):
    still = {"flips": False, "rotation": "none", "brightness": 0.0, "noise": 0.0, "pipeline": pipeline}
    samples = collect_training_data([discs], QUICK.changed(augmentation=still, epochs=1))
    monkeypatch.setattr(fitting, "MAX_AUGMENTED_VALUES", 3 * 8 * samples.inputs[0].size + 1)
    steps, varied = [], []
    step, call = fitting._NetworkTraining._step, Augmenter.__call__

    def watched(self, chosen, patches):
        steps.append((samples.inputs[chosen], patches.numpy()))
        return step(self, chosen, patches)

    def counted(self, patches, generator):
        varied.append(len(patches))
        return call(self, patches, generator)

    monkeypatch.setattr(fitting._NetworkTraining, "_step", watched)
    monkeypatch.setattr(Augmenter, "__call__", counted)
    trained(samples)
    assert varied == calls
    assert len(steps) == 5
    for wanted, got in steps:
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-6)  # a pipeline changes the unit, and back


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


def test_few_annotations_all_train_and_many_are_held_out_by_whole_groups(discs):
    samples = collect_training_data([discs], QUICK)
    assert trained(samples).score is None
    fitted = trained(samples, held_out_from=20)
    assert fitted.n < len(samples)
    assert fitted.score is not None
    assert fitted.score >= 0.9
    assert fitted.history[-1].score == fitted.score
    # An epoch costs as much as 120 patches forward; scoring takes 49 of them, every fifth epoch less than a tenth.
    assert [epoch.epoch for epoch in fitted.history if epoch.score is not None] == [5, 6]
    often = trained(samples, held_out_from=20, steps=25, epochs=2)
    assert all(epoch.score is not None for epoch in often.history)


def test_stopping_before_the_next_batch_gives_what_there_is(discs):
    asked = []

    def stop() -> bool:
        asked.append(True)
        return len(asked) > 8

    events = list(fit(collect_training_data([discs], QUICK), stop))
    assert sum(isinstance(event, Batch) for event in events) == 8
    last = events[-1]
    assert isinstance(last, FitResult)
    assert last.stopped
    assert [epoch.epoch for epoch in last.history] == [1, 2]


def test_stopping_keeps_the_best_epoch_that_was_scored(discs):
    samples = with_settings(collect_training_data([discs], QUICK), held_out_from=20, epochs=20, steps=25)
    epochs: list[Epoch] = []
    for event in fit(samples, stop=lambda: len(epochs) >= 4):
        if isinstance(event, Epoch):
            epochs.append(event)
    assert isinstance(event, FitResult)
    assert event.score == max(epoch.score for epoch in epochs[:4])


def test_stopped_before_it_began_it_still_gives_a_usable_classifier(discs):
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


def test_a_loss_that_is_no_number_ends_training_with_a_sentence(discs):
    samples = collect_training_data([discs], QUICK)
    samples.inputs[:] = np.inf
    with pytest.raises(ClassifierError, match="Set a learning_rate below"):
        list(fit(samples))


def test_one_epoch_of_one_step_predicts_with_settled_averages(discs):
    fitted = trained(collect_training_data([discs], QUICK), epochs=1, steps=1)
    norm = fitted.classifier.module.blocks[0][2]
    assert (norm.running_mean != 0).any()
    assert (norm.running_var != 1).any()


def test_one_class_or_none_is_refused_before_any_pixel_is_read(discs):
    found, objects, classes = discs
    with pytest.raises(InputError, match="none yet"):
        collect_training_data([(found, objects, classes[:0])], QUICK)
    with pytest.raises(InputError, match="only one class"):
        collect_training_data([(found, objects, classes[classes == 4])], QUICK)
    samples = collect_training_data([discs], QUICK)
    with pytest.raises(InputError, match="only one class"):
        fit(samples.subset(samples.targets == 4))


def test_one_annotation_of_each_class_is_enough_to_train(discs):
    found, objects, classes = discs
    fitted = trained(collect_training_data([(found, objects, classes.groupby(classes).head(1))], QUICK), epochs=1)
    assert fitted.n == 2


def test_an_annotation_of_an_object_that_is_gone_and_images_that_differ_are_refused(discs, balls):
    found, objects, classes = discs
    gone = pd.concat([classes, pd.Series([4], index=[999])])
    with pytest.raises(InputError, match="no object 999"):
        collect_training_data([(found, objects, gone)], QUICK)
    with pytest.raises(InputError, match="same dimensions and channels"):
        collect_training_data([discs, balls], QUICK)


def test_patches_that_do_not_fit_into_memory_are_refused_with_a_smaller_sampling(discs, monkeypatch):
    monkeypatch.setattr("svetlana_jupyter.learn.dataset.MAX_BYTES", 10_000)
    with pytest.raises(InputError, match="smaller sampling, for example 8"):
        collect_training_data([discs], QUICK)


def test_class_weights_must_name_classes(discs):
    samples = collect_training_data([discs], QUICK, names={4: "dark", 7: "bright"})
    for key in (99, "grey"):
        with pytest.raises(SettingsError, match=rf"{key!r}, but the annotated classes are 'dark' \(4\), 'bright'"):
            fit(with_settings(samples, class_weights={key: 2.0}))


def test_gathering_reports_progress_and_ends_with_samples_in_order_of_objects(discs):
    *steps, samples = collect_with_progress([discs], QUICK)
    assert all(isinstance(step, CollectionProgress) for step in steps)
    assert steps[-1] == CollectionProgress(len(discs[2]), len(discs[2]))
    assert isinstance(samples, TrainingData)
    np.testing.assert_array_equal(samples.objects, discs[2].index)
    np.testing.assert_array_equal(samples.targets, discs[2])


def test_groups_are_grouping_columns_else_images_else_regions(discs):
    found, objects, classes = discs
    other = type(found)("other", found.image, found.mask, {"plate": "P1", "well": "B2"})
    assert set(collect_training_data([(other, objects, classes), discs], QUICK).groups) == {"plate=P1 well=B2", "cells"}
    assert len(set(collect_training_data([discs], QUICK).groups)) == 16


def test_augmentation_settings_reach_the_patches(discs):
    wide = collect_training_data([discs], QUICK.changed(augmentation=AugmentSettings(rotation="free")))
    assert wide.inputs.shape[-1] > 12
    assert accuracy(trained(wide), discs) >= 0.95


def test_several_trainings_gathered_together_see_what_each_would_see_alone(part):
    several = [
        QUICK,
        QUICK.changed(augmentation={"rotation": "free"}),
        QUICK.changed(patches={"context": "hide", "normalize": "object"}, augmentation={"rotation": "free"}),
        QUICK.changed(architecture="forest"),
    ]
    *steps, together = collect_for_each([part], several)
    assert (steps[-1].done, steps[-1].total) == (2 * len(part[2]), 2 * len(part[2]))
    assert together[0].inputs is together[1].inputs
    for settings, samples in zip(several, together, strict=True):
        alone = collect_training_data([part], settings)
        assert samples.settings == alone.settings
        np.testing.assert_array_equal(samples.targets, alone.targets)
        seen, own = samples.inputs, alone.inputs
        if settings.architecture != "forest":
            shape = own.shape[2:]
            seen = center_crop(torch.from_numpy(seen), shape).numpy()
        np.testing.assert_allclose(seen, own, rtol=1e-5, atol=1e-5)
