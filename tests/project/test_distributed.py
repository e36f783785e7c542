"""Prediction on a local cluster of two processes: the same results as without it, with each block read once."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import zarr
from distributed import Client, LocalCluster
from distributed.comm import CommClosedError

import svetlana_jupyter
from svetlana_jupyter.core.io import chunks as blocks
from svetlana_jupyter.core.io import sources as stored
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.learn import inference as predicting
from svetlana_jupyter.learn.classifier import NetworkClassifier
from svetlana_jupyter.learn.inference import predict_part, sample_for_novelty, split_into_parts
from svetlana_jupyter.learn.novelty import fit_reference
from svetlana_jupyter.learn.training import fit
from svetlana_jupyter.project.distributed import predict_on_cluster, resolve_client
from svetlana_jupyter.project.prediction_parts import merge_batches
from svetlana_jupyter.project.project import Project
from tests.learn.calls import collect_training_data
from tests.learn.conftest import two_classes
from tests.project.conftest import CLASSES, squares

if TYPE_CHECKING:
    from pathlib import Path

QUICK = {"epochs": 1, "steps": 2, "width": 4, "depth": 2, "threads": 1, "folds": 2, "trees": 10}
SIDE = 28


def append_line(file: Path, line: str) -> None:
    """Append a line to a file that several processes write to."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(handle, f"{line}\n".encode())
    os.close(handle)


def count_lines(file: Path) -> Counter[str]:
    return Counter(file.read_text().split("\n")[:-1])


class LoggedPixels:
    """Array that logs every read to a file."""

    def __init__(self, pixels: np.ndarray, file: Path) -> None:
        self.pixels, self.file = pixels, file
        self.shape, self.dtype, self.ndim = pixels.shape, pixels.dtype, pixels.ndim

    def __getitem__(self, part):
        append_line(self.file, " ".join(f"{axis_slice.start}:{axis_slice.stop}" for axis_slice in part))
        return self.pixels[part]

    def as_dask(self, sides: int) -> da.Array:
        chunks = (*self.shape[:-2], sides, sides)
        return da.from_array(self, chunks=chunks, name=False, meta=np.empty((0,) * self.ndim, self.dtype))


class LoggedNetwork(NetworkClassifier):
    """Network that logs when it is unpickled in another process, and which patches it cuts."""

    file: Path

    def __reduce__(self):
        _, arguments = super().__reduce__()
        return _unpickle_logged, (self.file, *arguments)

    def read(self, pair, objects, max_objects):
        append_line(self.file, f"cut {objects.index[0]}")
        return super().read(pair, objects, max_objects)


def _unpickle_logged(file, *arguments):
    append_line(file, f"arrived at {os.getpid()}")
    network = NetworkClassifier(*arguments)
    network.__class__, network.file = LoggedNetwork, file
    return network


@pytest.fixture(scope="module")
def client():
    # Workers are forked from a process that has imported torch once, since each import takes seconds.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["distributed", "tests.project.test_distributed"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distributed.process.get_mp_context", lambda: context)
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield client


def use_blocks_of(side: int, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process and the workers group objects by small blocks."""

    def set_block_shape(side):
        from svetlana_jupyter.core.io import chunks as blocks

        blocks.MIN_BLOCK_SHAPE[2] = side, side

    monkeypatch.setitem(blocks.MIN_BLOCK_SHAPE, 2, (side, side))
    client.run(set_block_shape, side)


@pytest.fixture
def logged_work(client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Image in 16 blocks and several parts, its objects, a network and a reference; reads and cuts are logged."""
    use_blocks_of(SIDE, client, monkeypatch)
    monkeypatch.setitem(predicting.OBJECTS_PER_PART, ("network", 2), 5)
    samples = collect_training_data([two_classes(2)], TrainingSettings(**QUICK, patches={"size": 12}))
    *_, fitted = fit(samples)
    pair, objects, _ = two_classes(2)
    for kind in ("image", "mask"):
        array = getattr(pair, kind)
        pair = replace(
            pair,
            **{kind: array.copy(data=LoggedPixels(np.asarray(array), tmp_path / kind).as_dask(SIDE))},
            feature_cache=None,
        )
    network = LoggedNetwork(fitted.classifier.specification, fitted.classifier.module)
    network.file = tmp_path / "network"
    return pair, objects, network, fit_reference(samples)


def predict_locally(tmp_path, pair, objects, classifier, reference):
    """Return the parts and their predictions in this process, and clear the logs."""
    parts = split_into_parts(pair, objects, classifier)
    result = [predict_part(pair, part, classifier, reference, sample_for_novelty(objects)) for part in parts]
    for name in ("image", "mask", "network"):
        (tmp_path / name).unlink()
    return dict(enumerate(parts)), [merge_batches(*one, classifier.classes) for one in result]


def assert_same(result, expected):
    assert sorted(result) == list(range(len(expected)))
    for part, other in zip((result[number] for number in sorted(result)), expected, strict=True):
        np.testing.assert_array_equal(part.objects, other.objects)
        np.testing.assert_array_equal(part.probabilities, other.probabilities)
        assert (part.compared, part.outliers, part.failed) == (other.compared, other.outliers, other.failed)


def test_blocks_are_read_once_and_the_classifier_is_sent_once_per_worker(client, logged_work, tmp_path):
    parts, expected = predict_locally(tmp_path, *logged_work)
    pair, objects, network, reference = logged_work
    assert len(parts) >= 6
    assert sum(part.compared for part in expected) == len(objects)
    result = dict(
        predict_on_cluster(client, pair, parts, network, reference, sample_for_novelty(objects), lambda: False)
    )
    assert_same(result, expected)
    for kind in ("image", "mask"):
        reads = count_lines(tmp_path / kind)
        assert len(reads) == 16
        assert set(reads.values()) == {1}
    notes = count_lines(tmp_path / "network")
    assert [notes.pop(f"arrived at {pid}") for pid in client.run(os.getpid).values()] == [1, 1]
    assert notes.pop(f"arrived at {os.getpid()}") == 1, "the scheduler, which runs in this process"
    assert len(notes) == len(parts)
    assert set(notes.values()) == {1}


def test_only_the_blocks_of_a_lost_worker_are_predicted_again(client, logged_work, tmp_path):
    parts, expected = predict_locally(tmp_path, *logged_work)
    pair, objects, network, reference = logged_work
    pids = list(client.run(os.getpid).values())
    result = {}
    for number, part in predict_on_cluster(
        client, pair, parts, network, reference, sample_for_novelty(objects), lambda: False
    ):
        result[number] = part
        if len(result) == 2:
            done = {f"cut {parts[known].index[0]}" for known in result}
            os.kill(pids[0], signal.SIGKILL)
    assert_same(result, expected)
    notes = count_lines(tmp_path / "network")
    assert all(notes[one] == 1 for one in done), "what had arrived is not done again"
    assert max(notes[f"cut {part.index[0]}"] for part in parts.values()) <= 2
    assert sum(count_lines(tmp_path / "mask").values()) < 2 * 16
    client.wait_for_workers(2, timeout=30)
    assert pids[0] not in client.run(os.getpid).values()


def test_stop_keeps_received_parts_and_clears_the_cluster(client, logged_work):
    pair, objects, network, reference = logged_work
    parts = dict(enumerate(split_into_parts(pair, objects, network)))
    result: list[int] = []
    for number, _ in predict_on_cluster(
        client, pair, parts, network, reference, sample_for_novelty(objects), lambda: bool(result)
    ):
        result.append(number)
    assert len(result) == 1 < len(parts)
    client.sync(_until_empty, client)


async def _until_empty(client):
    while any((await client.scheduler.has_what()).values()):
        await asyncio.sleep(0.05)


@pytest.fixture
def project(client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(stored, "BLOCK_PIXELS", 256)
    use_blocks_of(24, client, monkeypatch)
    for kind in ("network", "forest", "live"):
        monkeypatch.setitem(predicting.OBJECTS_PER_PART, (kind, 2), 4)
    project = Project(tmp_path / "cells.svetlana", classes=CLASSES, annotator="ann")
    for kind, array in zip(("image", "mask"), squares(24, seed=1)):
        zarr.create_array(tmp_path / f"{kind}.zarr", data=array, chunks=(16, 16))
    project.add("well", tmp_path / "image.zarr", tmp_path / "mask.zarr")
    project.annotate("well", [1, 3], "dim")
    project.annotate("well", [2, 4], "bright")
    return project


@pytest.mark.parametrize("architecture", ["small_cnn", "forest", "live"])
def test_predictions_on_a_cluster_match_local_predictions(client, project, tmp_path, architecture):
    project.train(**QUICK, architecture=architecture, patches={"size": 20})
    file = project.runs.current.predictions_file("well")
    project.predict(client="local")
    expected = file.read_bytes()
    file.unlink()
    project.predict(client=client)
    assert file.read_bytes() == expected
    if architecture == "forest":  # with cached measurements
        return
    chunk = tmp_path / "image.zarr" / "c" / "5" / "3"
    chunk.write_bytes(b"\x00" * chunk.stat().st_size)
    project.predict(client="local", resume=False)
    failed = project.failed()
    assert len(failed)
    file.unlink()
    project.predict(client=client, resume=False)
    pd.testing.assert_frame_equal(project.failed(), failed)


def test_the_given_or_the_active_client_is_used(client):
    assert resolve_client(client) is client
    assert resolve_client(None) is None
    with client.as_current():
        assert resolve_client(None) is client
        assert resolve_client("local") is None
    with pytest.raises(InputError, match=r"must be a synchronous dask\.distributed\.Client"):
        resolve_client("tcp://10.0.0.1:8786")


def test_a_cluster_without_workers_is_reported_and_can_be_stopped(logged_work, monkeypatch):
    monkeypatch.setattr("svetlana_jupyter.project.distributed.CHECK_SECONDS", 0.0)
    monkeypatch.setattr("svetlana_jupyter.project.distributed.WITHOUT_WORKER_SECONDS", 0.2)
    pair, objects, network, _ = logged_work
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        assert resolve_client(client) is client
        parts = dict(enumerate(split_into_parts(pair, objects, network)))
        run = partial(predict_on_cluster, client, pair, parts, network, None, ())
        assert list(run(lambda: True)) == []
        with pytest.raises(InputError, match=r"has had no worker for 0 seconds\. Start workers and predict again"):
            list(run(lambda: False))


def test_a_worker_lost_while_its_version_is_checked_is_reported(client, monkeypatch):
    def lose(*_):
        raise CommClosedError("in <TCP (closed)>: Stream is closed")

    monkeypatch.setattr(client, "run", lose)
    with pytest.raises(InputError, match=r"was lost while the versions of its workers were checked \(in <TCP"):
        resolve_client(client)


def test_a_missing_or_different_package_on_the_workers_raises_an_error(client, monkeypatch):
    def set_version(version):
        import sys
        import types

        sys.modules["svetlana_hidden"] = version and types.SimpleNamespace(__version__=version)

    monkeypatch.setattr("svetlana_jupyter.project.distributed.PACKAGE", "svetlana_hidden")
    monkeypatch.setitem(sys.modules, "svetlana_hidden", svetlana_jupyter)
    client.run(set_version, None)
    with pytest.raises(InputError, match=r"of the cluster has no svetlana-jupyter\. Install the same"):
        resolve_client(client)
    client.run(set_version, "0.0.1")
    with pytest.raises(InputError, match=r"of the cluster has svetlana-jupyter 0\.0\.1, but this kernel has"):
        resolve_client(client)
