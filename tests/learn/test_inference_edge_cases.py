"""Inference for large objects, objects across many blocks and very large labels."""

from __future__ import annotations

from dataclasses import replace

import dask.array as da
import numpy as np
import pandas as pd
import pytest

from svetlana_jupyter.core.io import chunks as blocks
from svetlana_jupyter.core.io.image_pair import open_pair
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.learn import inference as predicting
from svetlana_jupyter.learn.training import fit
from tests.core.io.test_chunks import CountingArray
from tests.learn.calls import collect_training_data, predict

SIDE = 16  # side of blocks and chunks
FIELD = 40  # field of view: wider than a block and most objects
QUICK = TrainingSettings(
    **{"epochs": 1, "steps": 2, "depth": 2, "width": 4, "trees": 5, "preset": "plain"},
    patches={"size": FIELD, "sampling": FIELD, "normalize": "minmax"},
)
LABELS = [3, 70_000, 2**31 + 5, 2**40 + 1, 2**62, 2**62 + 1]


@pytest.fixture(scope="module", params=[2, 3], ids=["2D", "3D"])
def edge_cases(request):
    """Return a bar through many blocks, a frame around an object, dots in the corners and a large blob."""
    ndim = request.param
    shape = (9, 104, 97)[3 - ndim :]
    mask = np.zeros(shape, np.uint64)
    mask[..., 50:53, 1:96] = LABELS[0]
    mask[..., 60:95, 20:55] = LABELS[1]
    mask[..., 66:89, 26:49] = 0
    mask[..., 74:80, 34:40] = LABELS[2]
    mask[..., 0, 0] = LABELS[3]
    mask[..., -1, -1] = LABELS[4]
    mask[..., 3:45, 40:90] = LABELS[5]
    image = np.random.default_rng(0).integers(0, 60_000, (2, *shape)).astype(np.uint16)
    pair = open_pair("odd", image, mask, axes="c" + "zyx"[-ndim:])
    objects = index_objects(pair.mask)
    size = FIELD if ndim == 2 else (8, FIELD, FIELD)
    settings = QUICK.changed(patches={"size": size, "sampling": size})
    classes = pd.Series([1, 2] * 3, index=LABELS)
    *_, network = fit(collect_training_data([(pair, objects, classes)], settings))
    *_, forest = fit(collect_training_data([(pair, objects, classes)], settings.changed(architecture="forest")))
    return image, mask, pair, objects, network.classifier, forest.classifier


def naive(image: np.ndarray, mask: np.ndarray, label: int, sides: tuple[int, ...]) -> np.ndarray:
    """Return the patch of an object cut from the padded array, with channels scaled to 0..1 and its mask."""
    positions = np.argwhere(mask == label)
    first = np.floor(positions.mean(axis=0) - (np.array(sides) - 1) / 2 + 0.5).astype(int)
    margin = [(side, side) for side in sides]
    window = tuple(slice(start + side, start + 2 * side) for start, side in zip(first, sides))
    own = np.pad(mask == label, margin)[window]
    channels = [np.pad(channel.astype(np.float64), margin, mode="reflect")[window] for channel in image]
    scaled = [(channel - channel.min()) / (channel.max() - channel.min()) for channel in channels]
    return np.stack([*scaled, own]).astype(np.float32)


def in_small_chunks(pair, monkeypatch):
    """Return the same image with small chunks that count how often they are read."""
    monkeypatch.setitem(blocks.MIN_BLOCK_SHAPE, pair.ndim, (SIDE,) * pair.ndim)
    counting = {kind: CountingArray(np.asarray(getattr(pair, kind))) for kind in ("image", "mask")}
    arrays = {}
    for kind, source in counting.items():
        chunks = (1,) * (source.ndim - pair.ndim) + (SIDE,) * pair.ndim
        data = da.from_array(source, chunks=chunks, name=False, meta=np.empty((0,) * source.ndim, source.dtype))
        arrays[kind] = getattr(pair, kind).copy(data=data)
    return replace(pair, **arrays), counting


@pytest.mark.parametrize("least", [1, 2, 100])
def test_patches_equal_those_of_the_whole_array_and_each_chunk_is_read_once(edge_cases, least, monkeypatch):
    image, mask, pair, objects, network, _ = edge_cases
    for ndim in (2, 3):
        monkeypatch.setitem(predicting.OBJECTS_PER_PART, ("network", ndim), least)
    chunked, counting = in_small_chunks(pair, monkeypatch)
    events = list(predict(chunked, objects, network, 2))
    labels = np.concatenate([event.objects for event in events])
    assert sorted(labels.tolist()) == LABELS
    for label, probabilities in zip(labels.tolist(), np.concatenate([event.probabilities for event in events])):
        patch = naive(image, mask, label, tuple(map(int, network.patches.sampling)))
        np.testing.assert_allclose(probabilities, network.classify(patch[None])[0], atol=2e-5)
    for source in counting.values():
        assert len(source.reads) > 10
        assert set(source.reads.values()) == {1}


def test_limited_memory_rereads_chunks_without_changing_the_result(edge_cases, monkeypatch):
    _, _, pair, objects, network, _ = edge_cases
    for ndim in (2, 3):
        monkeypatch.setitem(predicting.OBJECTS_PER_PART, ("network", ndim), 1)
    chunked, _ = in_small_chunks(pair, monkeypatch)
    whole = np.concatenate([event.probabilities for event in predict(chunked, objects, network)])
    monkeypatch.setattr(blocks, "CACHE_BYTES", 3 * SIDE**pair.ndim * 8)
    cache_sizes = []
    release = blocks.ChunkCache.release
    monkeypatch.setattr(
        blocks.ChunkCache, "release", lambda self, step: (cache_sizes.append(self.nbytes), release(self, step))[1]
    )
    chunked_pair, counting = in_small_chunks(pair, monkeypatch)
    np.testing.assert_array_equal(
        np.concatenate([event.probabilities for event in predict(chunked_pair, objects, network)]), whole
    )
    assert max(cache_sizes) <= blocks.CACHE_BYTES
    assert max(counting["mask"].reads.values()) > 1


def test_forest_predictions_equal_those_of_the_whole_array(edge_cases, monkeypatch):
    _, _, pair, objects, _, forest = edge_cases
    expected = {}
    for event in predict(pair, objects, forest):
        expected |= dict(zip(event.objects.tolist(), event.probabilities))
    for ndim in (2, 3):
        monkeypatch.setitem(predicting.OBJECTS_PER_PART, ("forest", ndim), 1)
    chunked, counting = in_small_chunks(pair, monkeypatch)
    for event in predict(chunked, objects, forest):
        for label, probabilities in zip(event.objects.tolist(), event.probabilities):
            np.testing.assert_allclose(probabilities, expected[label], atol=1e-6)
    assert all(set(source.reads.values()) == {1} for source in counting.values())
