"""A small project for the panels: two images of bright and dark squares."""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from svetlana_jupyter.project.project import Project

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS, COLUMNS, STEP = 4, 6, 16


def squares(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of noise with squares, and their mask; odd objects are bright, even ones dark."""
    random = np.random.default_rng(seed)
    mask = np.zeros((ROWS * STEP, COLUMNS * STEP), np.uint16)
    for i in range(ROWS * COLUMNS):
        y, x = STEP * (i // COLUMNS) + 4, STEP * (i % COLUMNS) + 4
        mask[y : y + 9, x : x + 9] = i + 1
    image = random.normal(100, 4, mask.shape)
    image[mask > 0] += np.where(mask[mask > 0] % 2, 60, 20)
    return image.astype(np.uint8), mask


@pytest.fixture
def empty(tmp_path: Path) -> Project:
    """A project without images or classes."""
    return Project(tmp_path / "empty.svetlana")


@pytest.fixture(scope="session")
def squares_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of two images and the classes bright and dark, nothing annotated, made once."""
    made = Project(tmp_path_factory.mktemp("made") / "squares.svetlana", classes=["bright", "dark"])
    for seed, name in enumerate(["left", "right"]):
        made.add(name, *squares(seed), axes="yx")
    return made.path


@pytest.fixture
def project(squares_folder: Path, tmp_path: Path) -> Project:
    """A copy of that project."""
    return Project(shutil.copytree(squares_folder, tmp_path / "squares.svetlana"))


@pytest.fixture
def annotated(project: Project) -> Project:
    """The same project with twelve annotated objects in the left image."""
    for label in range(1, 13):
        project.annotate("left", label, "bright" if label % 2 else "dark")
    return project


@pytest.fixture(scope="session")
def trained_folder(squares_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one finished run and predictions of both images, made once."""
    made = Project(shutil.copytree(squares_folder, tmp_path_factory.mktemp("trained") / "squares.svetlana"))
    for label in range(1, 13):
        made.annotate("left", label, "bright" if label % 2 else "dark")
    made.train(preset="default", epochs=8, trees=20)
    made.predict()
    made.evaluate()  # so that the score is there in every copy
    return made.path


@pytest.fixture
def trained(trained_folder: Path, tmp_path: Path) -> Project:
    """A copy of that project."""
    return Project(shutil.copytree(trained_folder, tmp_path / "trained.svetlana"))


@pytest.fixture
def finish() -> Callable[[Project], None]:
    """Wait until a project's job is over."""

    def wait(project: Project) -> None:
        over = threading.Event()
        project.observe(lambda change: change["new"] is None and over.set(), "job")
        assert project.job is None or over.wait(120), "the job did not end"

    return wait
