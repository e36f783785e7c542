"""A kernel killed at any moment of an annotation session loses no acknowledged edit."""

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
LONGEST = 0.03  # seconds of a session after its first acknowledged edit

# One process imports everything; each annotation session is a fork of it, killed like a kernel and restarted at once.
FORKS = """
import json, os, sys
from svetlana_jupyter.project.project import Project

def label(path, seed):
    import numpy as np
    rng = np.random.default_rng(seed)
    project = Project(path, annotator="ann")
    known, queue = project.objects("well").index.to_numpy(), project.queue(seed=seed)
    while True:
        objects = rng.choice(known, rng.choice([1, 1, 1, 1, 3, 3, 20, 100]), replace=False).tolist()
        drawn = queue.next() if rng.random() < 0.3 else None
        objects = objects if drawn is None else [drawn.label]
        name = project.classes.names[rng.integers(2)]
        edit = project.annotations.file.log.next_edit
        project.annotate("well", objects, name)
        os.write(1, (json.dumps([edit, name, objects, drawn is not None]) + "\\n").encode())

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
    """Annotation sessions that are killed, with the edits each had acknowledged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.process = subprocess.Popen([sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.lines = self._read()

    def _read(self) -> Iterator[bytes | None]:
        """Yield lines as they arrive, and None whenever the deadline has passed."""
        partial = b""
        self.deadline: float | None = None
        while True:
            left = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
            if not select.select([self.stdout], [], [], left)[0]:
                self.deadline = None
                yield None
                continue
            partial += os.read(self.stdout.fileno(), 1 << 16)
            *lines, partial = partial.split(b"\n")
            yield from lines

    def run_and_kill(self, seconds: float, seed: int) -> list[list]:
        self.stdin.write((json.dumps([str(self.path), seed]) + "\n").encode())
        self.stdin.flush()
        child, edits = 0, []
        for line in self.lines:
            if line is None:
                os.kill(child, signal.SIGKILL)
            elif line == b"over":
                return edits
            elif line.startswith(b"["):
                edits.append(json.loads(line))
            else:
                child = int(line)
            if child and len(edits) == 1 and self.deadline is None and line is not None:
                self.deadline = time.monotonic() + seconds
        raise AssertionError("the labelling process ended by itself")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fifty_random_kills_lose_no_acknowledged_annotation(tmp_path: Path) -> None:
    mask = np.arange(1, 1001, dtype=np.uint16).reshape(25, 40).repeat(3, axis=0).repeat(3, axis=1)
    project = Project(tmp_path / "p.svetlana", CLASSES, annotator="setup")
    project.add("well", np.zeros(mask.shape, np.uint8), mask)
    project.objects("well")
    runs, rng, acknowledged = Runs(project.path), np.random.default_rng(0), []
    file = project.path / "annotations" / "ann.csv"
    for kill in range(KILLS):
        edits = runs.run_and_kill(rng.uniform(0, LONGEST), kill)
        acknowledged += edits
        entries = {(entry.edit, entry.label): entry.class_id for entry in read_entries(file)}
        ids = {name: number for number, name in enumerate(CLASSES, 1)}
        assert all(entries[edit, label] == ids[name] for edit, name, objects, _ in edits for label in objects)
    runs.process.kill()
    runs.process.wait()
    assert max(len(objects) for *_, objects, _ in acknowledged) == 100
    reopened = Project(project.path, annotator="ann")
    rows = {(row.edit, row.label): row.class_id for row in reopened.annotations.file.log.events}
    draws = {object_id.label for object_id in reopened.annotations.file.log.draws}
    assert any(drawn for *_, drawn in acknowledged)
    for edit, name, objects, drawn in acknowledged:
        assert not drawn or draws.issuperset(objects)
        assert {rows[edit, label] for label in objects} == {reopened.classes.by_name(name).id}
    assert reopened.annotations.file.has_open_file(), "the lock of a killed kernel is free"
