"""A kernel killed at any moment of a labelling run loses nothing that it had acknowledged."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from svetlana_jupyter.project.annotation_file import read_entries
from svetlana_jupyter.project.project import Project
from tests.project.conftest import CLASSES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KILLS = 50
LONGEST = 0.03  # seconds that a run lives after its first acknowledgement

# One process imports everything; each labelling run is a fork of it, killed like a kernel and started again at once.
FORKS = """
import json, os, sys
from svetlana_jupyter.project.project import Project

def label(path, seed):
    import numpy as np
    rng = np.random.default_rng(seed)
    project = Project(path, annotator="ann")
    known = project.objects("well").index.to_numpy()
    while True:
        objects = rng.choice(known, rng.choice([1, 1, 1, 1, 3, 3, 20, 100]), replace=False).tolist()
        name = project.classes.names[rng.integers(2)]
        edit = project.annotations.file.log.next_edit
        project.annotate("well", objects, name)
        os.write(1, (json.dumps([edit, name, objects]) + "\\n").encode())

for line in sys.stdin:
    path, seed = json.loads(line)
    child = os.fork()
    if child == 0:
        label(path, seed)
    os.write(1, f"{child}\\n".encode())
    os.waitpid(child, 0)
    os.write(1, b"over\\n")
"""


class Runs:
    """Starts labelling runs, kills them, and returns what each had acknowledged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.process = subprocess.Popen([sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.lines = self._read()

    def _read(self) -> Iterator[bytes | None]:
        """Lines as they come; None whenever the deadline is over."""
        waiting = b""
        self.deadline: float | None = None
        while True:
            left = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
            if not select.select([self.stdout], [], [], left)[0]:
                self.deadline = None
                yield None
                continue
            waiting += os.read(self.stdout.fileno(), 1 << 16)
            *whole, waiting = waiting.split(b"\n")
            yield from whole

    def killed_after(self, seconds: float, seed: int) -> list[list]:
        self.stdin.write((json.dumps([str(self.path), seed]) + "\n").encode())
        self.stdin.flush()
        child, said = 0, []
        for line in self.lines:
            if line is None:
                os.kill(child, signal.SIGKILL)
            elif line == b"over":
                return said
            elif line.startswith(b"["):
                said.append(json.loads(line))
            else:
                child = int(line)
            if child and len(said) == 1 and self.deadline is None and line is not None:
                self.deadline = time.monotonic() + seconds
        raise AssertionError("the labelling process ended by itself")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fifty_kills_at_random_moments_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    mask = np.arange(1, 1001, dtype=np.uint16).reshape(25, 40).repeat(3, axis=0).repeat(3, axis=1)
    project = Project(tmp_path / "p.svetlana", CLASSES, annotator="setup")
    project.add("well", np.zeros(mask.shape, np.uint8), mask)
    project.objects("well")
    runs, rng, acknowledged = Runs(project.path), np.random.default_rng(0), []
    file = project.path / "annotations" / "ann.csv"
    for kill in range(KILLS):
        said = runs.killed_after(rng.uniform(0, LONGEST), kill)
        acknowledged += said
        kept = {(entry.edit, entry.label): entry.class_id for entry in read_entries(file)}
        ids = {name: number for number, name in enumerate(CLASSES, 1)}
        assert all(kept[edit, label] == ids[name] for edit, name, objects in said for label in objects)
    runs.process.kill()
    runs.process.wait()
    assert len(acknowledged) > 2 * KILLS
    assert max(len(objects) for *_, objects in acknowledged) == 100
    again = Project(project.path, annotator="ann")
    rows = {(row.edit, row.label): row.class_id for row in again.annotations.file.log.events}
    for edit, name, objects in acknowledged:
        assert {rows[edit, label] for label in objects} == {again.classes.by_name(name).id}
    assert again.annotations.file.writable, "the lock of a killed kernel is free"
