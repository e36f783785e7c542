"""Resumed prediction: interrupted at any moment, it continues and writes the same file."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from svetlana_jupyter.core.io import chunks as blocks
from svetlana_jupyter.core.io import sources as stored
from svetlana_jupyter.errors import ClassifierError, ProjectError
from svetlana_jupyter.learn import device as devices
from svetlana_jupyter.learn import inference as predict
from svetlana_jupyter.learn.classifier import NetworkClassifier
from svetlana_jupyter.project.project import Project
from tests.project.conftest import CLASSES, squares

if TYPE_CHECKING:
    from pathlib import Path

COUNT, KILLS = 40, 5
QUICK = {
    "epochs": 1,
    "steps": 2,
    "width": 4,
    "depth": 2,
    "threads": 1,
    "folds": 2,
    "trees": 10,
    "patches": {"size": 20},
}
SMALL_PARTS = {"pixels": 1024, "sides": (24, 24), "least": 3}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make parts of four objects in a row of blocks."""
    monkeypatch.setattr(stored, "BLOCK_PIXELS", SMALL_PARTS["pixels"])
    monkeypatch.setitem(blocks.MIN_BLOCK_SHAPE, 2, SMALL_PARTS["sides"])
    monkeypatch.setitem(predict.OBJECTS_PER_PART, ("network", 2), SMALL_PARTS["least"])
    monkeypatch.setattr(predict, "PATCHES_PER_BATCH", (2, 2))


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory) -> Path:
    """Folder of a project with images of forty and of four squares, and a barely trained network."""
    folder = tmp_path_factory.mktemp("resume")
    project = Project(folder / "cells.svetlana", classes=CLASSES, annotator="ann")
    for name, count in (("large", COUNT), ("small", 4)):
        image, mask = squares(count, seed=count)
        tifffile.imwrite(folder / f"{name}.tif", image, tile=(32, 32))
        tifffile.imwrite(folder / f"{name}_mask.tif", mask, tile=(32, 32))
        project.add(name, folder / f"{name}.tif", folder / f"{name}_mask.tif")
    project.annotate("large", [1, 3], "dim")
    project.annotate("large", [2, 4], "bright")
    project.train(**QUICK)
    return folder


@pytest.fixture
def trained(trained_folder: Path, tmp_path: Path) -> Project:
    """Copy of the project for a single test, predicted in a dozen parts."""
    shutil.copytree(trained_folder, tmp_path, dirs_exist_ok=True)
    return Project(tmp_path / "cells.svetlana", annotator="ann")


@pytest.fixture
def cut_counts(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """Counter of how often the patch of each object was cut."""
    counted: Counter[int] = Counter()
    original = NetworkClassifier.read

    def counting(self, pair, objects, max_objects):
        for labels, cut in original(self, pair, objects, max_objects):
            counted.update(labels.tolist())
            yield labels, cut

    monkeypatch.setattr(NetworkClassifier, "read", counting)
    return counted


def uninterrupted_file(project: Project, image: str = "large") -> bytes:
    """Predict without interruption; return the content of the file and delete it."""
    project.predict([image])
    file = project.runs.current.predictions_file(image)
    found = file.read_bytes()
    shutil.rmtree(file.parent)
    return found


def stored_objects(project: Project) -> set[int]:
    """Return the objects of the parts on disk."""
    import pandas as pd

    files = project.runs.current.path.glob("predictions/large.*.parts/*.parquet")
    return {int(label) for file in files for label in pd.read_parquet(file).index}


def test_resuming_after_ctrl_c_gives_the_same_file_and_repeats_no_part(trained, cut_counts):
    expected = uninterrupted_file(trained)
    assert cut_counts == Counter(range(1, COUNT + 1))
    rng, interrupted = random.Random(0), 0
    for _ in range(200):
        finished = stored_objects(trained)
        cut_counts.clear()
        left = rng.randrange(1, 12)

        def interrupt(change):
            nonlocal left
            left -= change["new"] is not None
            if left < 0:
                raise KeyboardInterrupt

        trained.observe(interrupt, "job")
        try:
            trained.predict(["large"])
        except KeyboardInterrupt:
            interrupted += 1
            assert trained.job is None
            continue
        finally:
            trained.unobserve(interrupt, "job")
            assert not finished & set(cut_counts)
            assert max(cut_counts.values(), default=1) == 1
            assert not [thread for thread in threading.enumerate() if thread.name.startswith("reading blocks")]
        break
    assert interrupted >= 4
    file = trained.runs.current.predictions_file("large")
    assert file.read_bytes() == expected
    assert [path.name for path in file.parent.iterdir()] == ["large.parquet"]


def test_stop_keeps_the_finished_parts(trained, cut_counts):
    expected = uninterrupted_file(trained)
    cut_counts.clear()

    def stop(change):
        if change["new"] and len(stored_objects(trained)) >= 8:
            trained.stop()

    trained.observe(stop, "job")
    trained.background.predict(["large"])
    trained._jobs.wait(60)
    trained.unobserve(stop, "job")
    finished = stored_objects(trained)
    assert 8 <= len(finished) < COUNT
    assert trained.trouble == ""
    cut_counts.clear()
    trained.predict(["large"])
    assert set(cut_counts) == set(range(1, COUNT + 1)) - finished
    assert trained.runs.current.predictions_file("large").read_bytes() == expected


FORKS = """
import json, os, sys
from svetlana_jupyter.core.io import chunks as blocks
from svetlana_jupyter.core.io import sources as stored
from svetlana_jupyter.learn import inference as predict
from svetlana_jupyter.learn.classifier import NetworkClassifier as Network
from svetlana_jupyter.project.project import Project

path, small = json.loads(sys.stdin.readline())
stored.BLOCK_PIXELS = small["pixels"]
blocks.MIN_BLOCK_SHAPE[2] = tuple(small["sides"])
predict.OBJECTS_PER_PART["network", 2], predict.PATCHES_PER_BATCH = small["least"], (2, 2)
original = Network.read

def counting(self, pair, objects, max_objects):
    for labels, cut in original(self, pair, objects, max_objects):
        os.write(1, (json.dumps(labels.tolist()) + "\\n").encode())
        yield labels, cut

Network.read = counting
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        sys.stderr = open(os.devnull, "w")
        Project(path).predict(["large"])
        os._exit(0)
    os.write(1, f"child {child}\\n".encode())
    os.waitpid(child, 0)
    os.write(1, b"over\\n")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_random_kills_lose_only_unfinished_parts(trained):
    expected = uninterrupted_file(trained)
    process = subprocess.Popen([sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps([str(trained.path), SMALL_PARTS]) + "\n")
    rng, file, kills = random.Random(1), trained.runs.current.predictions_file("large"), 0
    while not file.exists():
        finished, child, seen = stored_objects(trained), 0, set()
        process.stdin.write("go\n")
        process.stdin.flush()
        until = rng.randrange(1, 20)
        for line in process.stdout:
            if line == "over\n":
                break
            if line.startswith("child"):
                child = int(line.split()[1])
            else:
                seen |= set(json.loads(line))
            if child and len(seen) >= until and kills < KILLS:
                time.sleep(rng.uniform(0, 0.01))
                os.kill(child, signal.SIGKILL)
                kills, until = kills + 1, COUNT + 1
        assert not finished & seen, "what is done is not done again"
    process.stdin.close()
    process.stdout.close()
    process.wait()
    assert kills >= 3  # some of the five may come too late
    trained.predict(["large"])
    assert file.read_bytes() == expected


def test_current_predictions_are_skipped_until_stale(trained, cut_counts):
    trained.predict()
    assert len(trained.predictions()) == COUNT + 4
    cut_counts.clear()
    trained.predict()
    assert not cut_counts
    trained.predict(["small"], resume=False)
    assert cut_counts == Counter([1, 2, 3, 4])
    cut_counts.clear()
    trained.predict(["small"], average=True)
    assert cut_counts == Counter([1, 2, 3, 4]), "averaged predictions are others"


def test_predictions_in_another_precision_are_not_mixed(trained, cut_counts, monkeypatch):
    assert trained.runs.current.precision == "float32"
    assert "16 bits" not in trained.runs.current.summary
    uninterrupted_file(trained)
    cut_counts.clear()

    def stop(change):
        if change["new"] and len(stored_objects(trained)) >= 8:
            trained.stop()

    trained.observe(stop, "job")
    trained.predict(["large"])
    trained.unobserve(stop, "job")
    assert stored_objects(trained)
    monkeypatch.setattr(devices, "is_faster_in_16_bits", lambda: True)
    cut_counts.clear()
    trained.predict(["large"])
    assert cut_counts == Counter(range(1, COUNT + 1))
    assert trained.runs.current.predictions_attributes("large")["precision"] == "bfloat16"
    cut_counts.clear()
    trained.predict(["large"])
    assert not cut_counts
    trained.train(**QUICK)
    assert json.loads((trained.runs.current.path / "run.json").read_text())["precision"] == "bfloat16"
    assert "Computed in 16 bits (bfloat16)" in trained.runs.current.summary


def test_another_mask_makes_predictions_stale(trained, cut_counts, tmp_path):
    trained.predict()
    _, mask = squares(4, seed=4)
    mask[mask == 4] = 40
    tifffile.imwrite(tmp_path / "other_mask.tif", mask)
    trained.replace_mask("small", tmp_path / "other_mask.tif")
    cut_counts.clear()
    trained.predict()
    assert sorted(cut_counts) == [1, 2, 3, 40]
    assert trained.probabilities("small").index.tolist() == [1, 2, 3, 40]


def test_a_changed_image_is_predicted_again_and_reported(trained, cut_counts, tmp_path):
    trained.predict()
    before = trained.probabilities("small")
    image, _ = squares(4, seed=77)
    tifffile.imwrite(tmp_path / "small.tif", 255 - image, tile=(32, 32))
    cut_counts.clear()
    trained.predict()
    assert cut_counts == Counter([1, 2, 3, 4])
    assert not trained.probabilities("small").equals(before)
    assert "small has changed and was predicted again" in trained.status
    other = Project(trained.path, annotator="other")
    probabilities = trained.probabilities("small")
    other.predict(["small"], resume=False)
    np.testing.assert_array_equal(other.probabilities("small"), probabilities)


def test_the_warning_of_the_first_image_is_still_shown_at_the_end(trained, tmp_path):
    trained.predict()
    assert trained.status == f"Predicted {len(trained.predictions()):,} objects of 2 images"
    for name in ("small", "large"):
        image = tifffile.imread(tmp_path / f"{name}.tif")
        tifffile.imwrite(tmp_path / f"{name}.tif", 255 - image, tile=(32, 32))
    trained.predict()
    assert all(f"{name} has changed and was predicted again" in trained.status for name in ("small", "large"))


def test_parts_of_another_image_are_not_reused(trained, cut_counts, tmp_path):
    def stop(change):
        if change["new"] and len(stored_objects(trained)) >= 8:
            raise KeyboardInterrupt

    trained.observe(stop, "job")
    with pytest.raises(KeyboardInterrupt):
        trained.predict(["large"])
    trained.unobserve(stop, "job")
    image, _ = squares(COUNT, seed=5)
    tifffile.imwrite(tmp_path / "large.tif", image, tile=(32, 32))
    cut_counts.clear()
    trained.predict(["large"])
    assert cut_counts == Counter(range(1, COUNT + 1))


def test_a_full_disk_raises_an_error_and_keeps_finished_parts(trained, monkeypatch):
    expected = uninterrupted_file(trained)
    calls = 0
    original = os.replace

    def filling_up(*paths):
        nonlocal calls
        calls += str(paths[1]).endswith(".parquet")
        if calls > 3:
            raise OSError(28, "No space left on device")
        original(*paths)

    with monkeypatch.context() as full:
        full.setattr("svetlana_jupyter.project.storage.os.replace", filling_up)
        with pytest.raises(ProjectError, match=r"could not be written \(No space left.*finished parts are kept"):
            trained.predict()
    assert trained.job is None
    assert 0 < len(stored_objects(trained)) < COUNT
    trained.predict(["large"])
    assert trained.runs.current.predictions_file("large").read_bytes() == expected


def test_progress_reports_objects_per_second_and_remaining_time(trained, monkeypatch):
    monkeypatch.setattr("svetlana_jupyter.project.jobs.MIN_RATE_SECONDS", 0)
    states = []
    trained.observe(lambda change: states.append(change["new"]), "job")
    trained.predict()
    texts = [state.text for state in states if state]
    assert any("predicting large" in text and "objects per second" in text for text in texts)
    assert any(state.seconds_left is not None and state.seconds_left > 0 for state in states if state)


def test_averaging_is_the_mean_over_views_and_needs_a_run_with_augmentation(trained):
    trained.predict(["small"], average=True)
    averaged = trained.runs.current.read_predictions("small")
    from svetlana_jupyter.core.patches import take_patch
    from svetlana_jupyter.learn.classifier import load_classifier

    classifier, pair = load_classifier(trained.runs.current.path), trained.pair("small")
    for label, row in trained.objects("small").iterrows():
        patch = take_patch(pair.image, pair.mask, row[["y", "x"]].to_numpy(float), classifier.patches, label)
        turned = [np.rot90(patch, turns, axes=(1, 2)) for turns in range(4)]
        eight = np.stack([*turned, *(np.flip(view, axis=2) for view in turned)]).copy()
        mean = classifier.classify(eight).mean(axis=0)
        np.testing.assert_allclose(averaged.loc[label].filter(like="p_"), mean, atol=1e-6)
    trained.train(preset="plain", **QUICK)
    with pytest.raises(ClassifierError, match="trained without flips"):
        trained.predict(average=True)
    trained.train(architecture="forest", **QUICK)
    with pytest.raises(ClassifierError, match="forest"):
        trained.predict(average=True)
