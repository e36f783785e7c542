"""Live classifier that is stored: predictions, reading, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from svetlana_jupyter.core.features.fitted_sources import FittedSource, FittedSources, fit_source
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import ClassifierError, DamagedError
from svetlana_jupyter.learn.classifier import load_classifier
from svetlana_jupyter.learn.encoder import EncoderSource, check_encoder
from svetlana_jupyter.learn.live_classifier import LiveClassifier, fit_live_classifier
from svetlana_jupyter.learn.live_head import fit_least_squares, fit_live_forest
from svetlana_jupyter.learn.specification import SPEC_FILE
from tests.learn.calls import collect_training_data, cut, predict

LIVE = TrainingSettings(architecture="live")


def corners(patches: np.ndarray) -> np.ndarray:
    """Return the brightest and the darkest pixel of patches."""
    return np.stack([patches.max(axis=(1, 2, 3)), patches.min(axis=(1, 2, 3))], axis=1)


def with_encoder(samples, part) -> LiveClassifier:
    """Fit a live classifier that also uses an encoder of the user."""
    pair, objects, classes = part
    source = EncoderSource("encoder corners", corners, 16, check_encoder("corners", corners, 16), samples.settings)
    fitted = fit_source(source, {pair.name: objects}, lambda name: pair)[0]
    first, *rest = samples.sources.sources
    sources = FittedSources((first, fitted, *rest))
    inputs = np.concatenate([values for _, values in sources.compute(pair, objects.loc[classes.index])])
    return fit_live_classifier(replace(samples, inputs=inputs, sources=sources))


def test_probabilities_are_the_average_of_least_squares_and_trees(annotated_image):
    samples = collect_training_data([annotated_image], LIVE)
    classifier = fit_live_classifier(samples)
    codes = np.searchsorted(samples.classes, samples.targets)
    columns = samples.sources.forest_columns
    head, forest = fit_least_squares(samples.inputs, codes), fit_live_forest(samples.inputs[:, columns], codes)
    pair, objects, _ = annotated_image
    labels, values = next(cut(classifier, pair, objects))
    expected = (head.probabilities(values) + forest.probabilities(values[:, columns])) / 2
    np.testing.assert_allclose(classifier.classify(values), expected, atol=1e-6)
    assert set(labels) == set(objects.index)
    predicted = {label: p for event in predict(pair, objects, classifier) for label, p in _rows(event)}
    for label, p in zip(labels.tolist(), expected, strict=True):
        np.testing.assert_allclose(predicted[label], p, atol=1e-6)


def _rows(event):
    return zip(event.objects.tolist(), event.probabilities, strict=True)


def test_features_are_rounded_as_a_project_stores_them(discs):
    pair, objects, _ = discs
    sources = collect_training_data([discs], LIVE).sources
    (_, values), start = next(sources.compute(pair, objects)), 0
    for each, weights in zip(sources.sources, sources.weights, strict=True):
        steps = values[:, start : start + len(weights)][:, weights > 0] / weights[weights > 0]
        np.testing.assert_allclose(steps, np.rint(steps), atol=2e-3)
        start += len(each.center)
    assert np.abs(values).max() > 0


def test_cues_that_are_not_allowed_add_no_features(discs):
    settings = LIVE.changed(may_use=["brightness", "size", "surroundings"])
    classifier = fit_live_classifier(collect_training_data([discs], settings))
    assert "oriented" not in classifier.sources.blocks
    assert [len(source.sizes) for source in classifier.specification.sources] == [1, 1]


def test_patches_are_not_averaged_over_views(discs):
    with pytest.raises(ClassifierError, match="average=True"):
        fit_live_classifier(collect_training_data([discs], LIVE)).with_test_time_augmentation()


def test_the_regions_cover_everything_that_is_read(discs):
    pair, objects, _ = discs
    classifier = fit_live_classifier(collect_training_data([discs], LIVE))
    regions = classifier.windows(pair, objects)
    for axis, name in enumerate("yx"):
        assert min(region.low[axis] for region in regions) <= objects[f"{name}0"].min()
        assert max(region.high[axis] for region in regions) >= objects[f"{name}1"].max()
    assert len(regions) == sum(
        len(each.source.regions(pair, objects, each.fitted)) for each in classifier.sources.sources
    )


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("weights", lambda values: values[1:], "weights do not fit"),
        ("bias", lambda values: values[1:], "weights do not fit"),
        ("weights", lambda values: np.full_like(values, np.inf), "not finite"),
        ("weights", lambda values: np.full_like(values, 3e38), "impossibly large"),
        ("temperatures", lambda values: -values, "temperatures"),
        ("temperatures", lambda values: values[:1], "do not describe"),
        ("trees.left", lambda values: values * 0, "does not follow it"),
        ("trees.feature", lambda values: values + 10**6, "compares no feature"),
        ("trees.value", lambda values: values[:, :1], "do not fit together"),
        ("source0.center", lambda values: values[1:], "do not fit together"),
        ("source1.scale", lambda values: values * np.nan, "do not fit together"),
        ("source1.learned.axes", lambda values: values[:, :0], "axes of its channels"),
        ("source1.learned.mean", lambda values: np.repeat(values, 2), "axes of its channels"),
        ("source1.learned.side", lambda values: -values, "side of its patches"),
        ("source1.learned.pixels", lambda values: values + 1e9, "number of pixels"),
    ],
)
def test_impossible_arrays_are_refused(discs, name, change, reason):
    classifier = fit_live_classifier(collect_training_data([discs], LIVE))
    tensors = dict(classifier.tensors())
    assert LiveClassifier.from_tensors(classifier.specification, tensors)
    for broken in (tensors | {name: change(tensors[name])}, {key: tensors[key] for key in tensors if key != name}):
        with pytest.raises(ClassifierError, match="do not describe a live classifier"):
            LiveClassifier.from_tensors(classifier.specification, broken)
    with pytest.raises(ClassifierError, match=reason):
        LiveClassifier.from_tensors(classifier.specification, tensors | {name: change(tensors[name])})


def test_features_of_another_version_or_size_are_refused(discs, tmp_path):
    fit_live_classifier(collect_training_data([discs], LIVE)).save(tmp_path)
    file = tmp_path / SPEC_FILE
    description = json.loads(file.read_text("utf-8"))
    for change, message in (
        ({"version": "0"}, "another version of svetlana-jupyter"),
        ({"sizes": [3, 4]}, "do not fit together"),
        ({"name": "magic"}, "features 'magic', which are missing"),
    ):
        patches = description["sources"][1] | change
        changed = description | {"sources": [description["sources"][0], patches]}
        file.write_text(json.dumps(changed), "utf-8")
        with pytest.raises(ClassifierError, match=message):
            load_classifier(tmp_path)


def test_an_encoder_of_the_user_is_needed_again_and_named(discs, tmp_path):
    samples = collect_training_data([discs], LIVE)
    classifier = with_encoder(samples, discs)
    classifier.save(tmp_path)
    with pytest.raises(ClassifierError, match=r"'encoder corners', which are missing.*project\.features\.add"):
        load_classifier(tmp_path)
    encoder = classifier.sources.sources[1].source
    changed = replace(encoder, digest="other")
    with pytest.raises(ClassifierError, match=r"'encoder corners', which have changed"):
        load_classifier(tmp_path, encoders={"encoder corners": changed})
    loaded = load_classifier(tmp_path, encoders={"encoder corners": encoder})
    _, values = next(cut(loaded, *discs[:2]))
    np.testing.assert_allclose(loaded.classify(values), classifier.classify(values), atol=1e-6)


def test_an_object_without_features_is_damaged_and_other_columns_are_refused(discs, monkeypatch):
    pair, objects, _ = discs
    sources = collect_training_data([discs], LIVE).sources
    measured = sources.sources[0]
    compute = type(measured.source).compute

    def without_first(self, pair, objects, fitted):
        for labels, blocks in compute(self, pair, objects, fitted):
            yield labels[1:], {"measurements": blocks["measurements"][1:]}

    monkeypatch.setattr(type(measured.source), "compute", without_first)
    with pytest.raises(DamagedError, match="has no measurements"):
        list(sources.compute(pair, objects))
    monkeypatch.setattr(type(measured.source), "compute", compute)
    fewer = FittedSource(measured.source, {}, measured.center[1:], measured.scale[1:], (len(measured.center) - 1,))
    with pytest.raises(ClassifierError, match="Train it again"):
        list(FittedSources((fewer, *sources.sources[1:])).compute(pair, objects))
