"""Fixtures of the project tests: small projects with generated images."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.project.project import Project

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ["dim", "bright"]


def squares(count: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a uint8 image of squares on a noisy background and its uint16 mask; even labels are bright."""
    rng = np.random.default_rng(seed)
    rows = -(-count // 4)
    image = rng.normal(40, 6, (rows * 24, 96))
    mask = np.zeros(image.shape, np.uint16)
    for label in range(1, count + 1):
        row, column = divmod(label - 1, 4)
        place = np.s_[row * 24 + 6 : row * 24 + 18, column * 24 + 6 : column * 24 + 18]
        mask[place] = label
        image[place] += 90 if label % 2 == 0 else 30
    return image.clip(0, 255).astype(np.uint8), mask


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with three images, their masks and a project of them; `wells` and `project` are copies."""
    folder = tmp_path_factory.mktemp("template")
    for name, seed in (("P1_A1", 1), ("P1_A2", 2), ("P2_A1", 3)):
        image, mask = squares(seed=seed)
        for kind, array in (("wells", image), ("masks", mask)):
            (folder / kind).mkdir(exist_ok=True)
            tifffile.imwrite(folder / kind / f"{name}.tif", array)
    make_project(folder).annotations.file.close()
    return folder


def make_project(wells: Path) -> Project:
    """Return a new project with the three wells, two classes and a fixed preset, so that training starts no search."""
    project = Project(wells / "cells.svetlana", classes=CLASSES, annotator="ann")
    project.add_images(wells / "wells/{plate}_{well}.tif", masks=wells / "masks/{plate}_{well}.tif")
    project.settings = TrainingSettings(preset="default", trees=20)
    return project


def reopen(project: Project, annotator: str = "ann") -> Project:
    """Return the project as a restarted kernel would open it."""
    project.annotations.file.close()
    return Project(project.path, annotator=annotator)


@pytest.fixture
def wells(template: Path, tmp_path: Path) -> Path:
    """Folder with three images and masks, named by plate and well."""
    for kind in ("wells", "masks"):
        shutil.copytree(template / kind, tmp_path / kind)
    return tmp_path


@pytest.fixture
def project(template: Path, wells: Path) -> Project:
    """Copy of the project that `make_project` returns."""
    shutil.copytree(template / "cells.svetlana", wells / "cells.svetlana")
    return Project(wells / "cells.svetlana", annotator="ann")


@pytest.fixture(scope="session")
def large_template(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a project with three plates, seven wells and 84 objects; `large` is a copy."""
    folder = tmp_path_factory.mktemp("large")
    shutil.copytree(template, folder, dirs_exist_ok=True)
    project = Project(folder / "cells.svetlana", annotator="ann")
    for i in range(4):
        project.add(f"more{i}", *squares(seed=10 + i), axes="yx", groups={"plate": "P3", "well": f"B{i}"})
    project.annotations.file.close()
    return project.path


@pytest.fixture
def large(large_template: Path, wells: Path) -> Project:
    """Project with three plates, seven wells and 84 objects."""
    shutil.copytree(large_template, wells / "cells.svetlana")
    return Project(wells / "cells.svetlana", annotator="ann")
