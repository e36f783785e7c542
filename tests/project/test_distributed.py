"""On a real cluster of two processes, predictions are those of this machine, and each block is read once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import zarr
from distributed import Client, LocalCluster

import svetlana_jupyter
from svetlana_jupyter.core.io import chunks as blocks
from svetlana_jupyter.core.io import sources as stored
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.learn import inference as predicting
from svetlana_jupyter.learn.classifier import NetworkClassifier, _unpickle
from svetlana_jupyter.learn.dataset import collect_training_data
from svetlana_jupyter.learn.inference import predict_part, sample_for_novelty, split_into_parts
from svetlana_jupyter.learn.novelty import fit_reference
from svetlana_jupyter.learn.training import fit
from svetlana_jupyter.project.distributed import predict_on_cluster, resolve_client
from svetlana_jupyter.project.prediction_parts import merge_batches
from svetlana_jupyter.project.project import Project
from tests.learn.conftest import two_classes
from tests.project.conftest import CLASSES, squares

if TYPE_CHECKING:
    from pathlib import Path

QUICK = {"epochs": 1, "steps": 2, "width": 4, "depth": 2, "threads": 1, "folds": 2, "trees": 10}
SIDE = 28


def note(file: Path, line: str) -> None:
    """Append a line; several processes may."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(handle, f"{line}\n".encode())
    os.close(handle)


def noted(file: Path) -> Counter[str]:
    return Counter(file.read_text().split("\n")[:-1])


class Noting:
    """Pixels that note in a file which part of them is read."""

    def __init__(self, pixels: np.ndarray, file: Path) -> None:
        self.pixels, self.file = pixels, file
        self.shape, self.dtype, self.ndim = pixels.shape, pixels.dtype, pixels.ndim

    def __getitem__(self, part):
        note(self.file, " ".join(f"{along.start}:{along.stop}" for along in part))
        return self.pixels[part]

    def lazily(self, sides: int) -> da.Array:
        chunks = (*self.shape[:-2], sides, sides)
        return da.from_array(self, chunks=chunks, name=False, meta=np.empty((0,) * self.ndim, self.dtype))


class NotedNetwork(NetworkClassifier):
    """A network that notes its arrivals in other processes, and what it cuts there."""

    file: Path

    def __reduce__(self):
        _, arguments = super().__reduce__()
        return _arrived_noted, (self.file, *arguments)

    def cut(self, pair, objects):
        note(self.file, f"cut {objects.index[0]}")
        return super().cut(pair, objects)


def _arrived_noted(file, *arguments):
    note(file, f"arrived at {os.getpid()}")
    network = _unpickle(*arguments)
    network.__class__, network.file = NotedNetwork, file
    return network


@pytest.fixture(scope="module")
def client():
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def work_in_blocks_of(side: int, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process and the workers group objects by small blocks."""

    def there(side):
        from svetlana_jupyter.core.io import chunks as blocks

        blocks.MIN_BLOCK_SHAPE[2] = side, side

    monkeypatch.setitem(blocks.MIN_BLOCK_SHAPE, 2, (side, side))
    client.run(there, side)


@pytest.fixture
def work(client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An image in 16 blocks and some parts, which notes what is read of it, a classifier that notes what it cuts."""
    work_in_blocks_of(SIDE, client, monkeypatch)
    monkeypatch.setitem(predicting.OBJECTS_PER_PART, ("network", 2), 5)
    samples = collect_training_data([two_classes(2)], TrainingSettings(**QUICK, patches={"size": 12}))
    *_, fitted = fit(samples)
    pair, objects, _ = two_classes(2)
    for kind in ("image", "mask"):
        array = getattr(pair, kind)
        pair = replace(
            pair, **{kind: array.copy(data=Noting(np.asarray(array), tmp_path / kind).lazily(SIDE))}, feature_cache=None
        )
    network = NotedNetwork(fitted.classifier.specification, fitted.classifier.module)
    network.file = tmp_path / "network"
    return pair, objects, network, fit_reference(samples)


def locally(tmp_path, pair, objects, classifier, reference):
    """Return the parts, and what this process finds; nothing of that is noted."""
    parts = split_into_parts(pair, objects, classifier)
    found = [predict_part(pair, part, classifier, reference, sample_for_novelty(objects)) for part in parts]
    for name in ("image", "mask", "network"):
        (tmp_path / name).unlink()
    return dict(enumerate(parts)), [merge_batches(*one, classifier.classes) for one in found]


def assert_same(found, expected):
    assert sorted(found) == list(range(len(expected)))
    for part, other in zip((found[number] for number in sorted(found)), expected, strict=True):
        np.testing.assert_array_equal(part.objects, other.objects)
        np.testing.assert_array_equal(part.probabilities, other.probabilities)
        assert (part.compared, part.outliers, part.failed) == (other.compared, other.outliers, other.failed)


def test_parts_are_the_same_blocks_are_read_once_and_the_classifier_travels_once_a_worker(client, work, tmp_path):
    parts, expected = locally(tmp_path, *work)
    pair, objects, network, reference = work
    assert len(parts) >= 6
    assert sum(part.compared for part in expected) == len(objects)
    found = dict(
        predict_on_cluster(client, pair, parts, network, reference, sample_for_novelty(objects), lambda: False)
    )
    assert_same(found, expected)
    for kind in ("image", "mask"):
        reads = noted(tmp_path / kind)
        assert len(reads) == 16
        assert set(reads.values()) == {1}
    notes = noted(tmp_path / "network")
    assert [notes.pop(f"arrived at {pid}") for pid in client.run(os.getpid).values()] == [1, 1]
    assert notes.pop(f"arrived at {os.getpid()}") == 1, "the scheduler, which runs in this process"
    assert len(notes) == len(parts)
    assert set(notes.values()) == {1}


def test_a_worker_that_dies_costs_its_blocks_again_and_nothing_else(client, work, tmp_path):
    parts, expected = locally(tmp_path, *work)
    pair, objects, network, reference = work
    pids = list(client.run(os.getpid).values())
    found = {}
    for number, part in predict_on_cluster(
        client, pair, parts, network, reference, sample_for_novelty(objects), lambda: False
    ):
        found[number] = part
        if len(found) == 2:
            done = {f"cut {parts[known].index[0]}" for known in found}
            os.kill(pids[0], signal.SIGKILL)
    assert_same(found, expected)
    notes = noted(tmp_path / "network")
    assert all(notes[one] == 1 for one in done), "what had arrived is not done again"
    assert max(notes[f"cut {part.index[0]}"] for part in parts.values()) <= 2
    assert sum(noted(tmp_path / "mask").values()) < 2 * 16
    client.wait_for_workers(2, timeout=30)
    assert pids[0] not in client.run(os.getpid).values()


def test_a_stop_keeps_what_has_arrived_and_leaves_nothing_on_the_cluster(client, work):
    pair, objects, network, reference = work
    parts = dict(enumerate(split_into_parts(pair, objects, network)))
    found: list[int] = []
    for number, _ in predict_on_cluster(
        client, pair, parts, network, reference, sample_for_novelty(objects), lambda: bool(found)
    ):
        found.append(number)
    assert len(found) == 1 < len(parts)
    client.sync(_until_empty, client)


async def _until_empty(client):
    while any((await client.scheduler.has_what()).values()):
        await asyncio.sleep(0.05)


@pytest.fixture
def project(client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(stored, "BLOCK_PIXELS", 256)
    work_in_blocks_of(24, client, monkeypatch)
    for kind in ("network", "forest"):
        monkeypatch.setitem(predicting.OBJECTS_PER_PART, (kind, 2), 4)
    project = Project(tmp_path / "cells.svetlana", classes=CLASSES, annotator="ann")
    for kind, array in zip(("image", "mask"), squares(24, seed=1)):
        zarr.create_array(tmp_path / f"{kind}.zarr", data=array, chunks=(16, 16))
    project.add("well", tmp_path / "image.zarr", tmp_path / "mask.zarr")
    project.annotate("well", [1, 3], "dim")
    project.annotate("well", [2, 4], "bright")
    return project


@pytest.mark.parametrize("architecture", ["small_cnn", "forest"])
def test_a_project_predicts_on_a_cluster_what_it_predicts_here(client, project, tmp_path, architecture):
    project.train(**QUICK, architecture=architecture, patches={"size": 20})
    file = project.runs.current.predictions_file("well")
    project.predict(client="local")
    expected = file.read_bytes()
    file.unlink()
    project.predict(client=client)
    assert file.read_bytes() == expected
    if architecture == "forest":  # which knows what was measured before
        return
    chunk = tmp_path / "image.zarr" / "c" / "5" / "3"
    chunk.write_bytes(b"\x00" * chunk.stat().st_size)
    project.predict(client="local", resume=False)
    failed = project.failed()
    assert len(failed)
    file.unlink()
    project.predict(client=client, resume=False)
    pd.testing.assert_frame_equal(project.failed(), failed)


def test_the_client_is_the_one_given_or_the_one_that_is_active(client):
    assert resolve_client(client) is client
    assert resolve_client(None) is None
    with client.as_current():
        assert resolve_client(None) is client
        assert resolve_client("local") is None
    with pytest.raises(InputError, match=r"must be a synchronous dask\.distributed\.Client"):
        resolve_client("tcp://10.0.0.1:8786")


def test_a_cluster_without_the_package_or_with_another_version_is_one_sentence(client, monkeypatch):
    def hide(version):
        import sys
        import types

        sys.modules["svetlana_hidden"] = version and types.SimpleNamespace(__version__=version)

    monkeypatch.setattr("svetlana_jupyter.project.distributed.PACKAGE", "svetlana_hidden")
    monkeypatch.setitem(sys.modules, "svetlana_hidden", svetlana_jupyter)
    client.run(hide, None)
    with pytest.raises(InputError, match=r"of the cluster has no svetlana-jupyter\. Install the same"):
        resolve_client(client)
    client.run(hide, "0.0.1")
    with pytest.raises(InputError, match=r"of the cluster has svetlana-jupyter 0\.0\.1, but this is"):
        resolve_client(client)
