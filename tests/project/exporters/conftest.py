"""Fixtures of the exporter tests: projects with results of two planar images and of a volume.

The image names differ only in ways that some file systems ignore."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from svetlana_jupyter.project.project import Project

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["Plate/1 µ", "plate/1 µ"]
LARGEST = 2**31 + 5
SPACING = (0.5, 0.25)


def flat(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy two-channel image of squares; one has a hole with an island, another has two more parts."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((50, 70), np.uint32)
    for label in range(1, 13):
        row, column = divmod(label - 1, 4)
        mask[row * 16 + 3 : row * 16 + 13, column * 17 + 3 : column * 17 + 13] = label
    mask[6:10, 6:10] = 0
    mask[8, 8] = 1
    mask[13, 30], mask[14, 31] = 2, 2
    mask[mask == 12] = LARGEST
    image = rng.normal(60, 8, (2, *mask.shape))
    image[:, mask > 0] += np.where(mask[mask > 0] % 2, 20, 90)
    return image.clip(0, 255).astype(np.uint8), mask


def deep() -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy volume of eight balls; one is in two parts on some planes."""
    mask = np.zeros((9, 40, 44), np.uint16)
    z, y, x = np.indices(mask.shape)
    for label in range(1, 9):
        row, column = divmod(label - 1, 4)
        mask[(z - 4) ** 2 * 4 + (y - 10 - row * 20) ** 2 + (x - 5 - column * 11) ** 2 <= 24] = label
    mask[4, 10, 3:8] = 0
    return np.random.default_rng(3).normal(100, 9, mask.shape).astype(np.float32), mask


@pytest.fixture(scope="session")
def predicted_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    project = Project(folder / "cells.svetlana", classes=["dim", "=bright <b>"], annotator="ann")
    for seed, name in enumerate(NAMES):
        image, mask = flat(seed)
        (folder / f"in {seed}").mkdir()
        tifffile.imwrite(folder / f"in {seed}/image.tif", image)
        tifffile.imwrite(folder / f"in {seed}/mask.tif", mask)
        project.add(
            name,
            folder / f"in {seed}/image.tif",
            folder / f"in {seed}/mask.tif",
            "cyx",
            spacing=SPACING,
            channels=["dna", "actin"],
            groups={"plate": f"P{seed}"},
        )
    for label in (1, 3, 5):
        project.annotate(NAMES[0], label, "dim")
        project.annotate(NAMES[0], label + 1, "=bright <b>")
    project.flag(NAMES[0], 7, "ambiguous")
    project.train(architecture="forest", trees=20)
    project.predict()
    return folder


@pytest.fixture
def predicted(predicted_folder: Path, tmp_path: Path) -> Project:
    """Project with two images of two channels and known spacing, annotated and predicted; an object is ambiguous."""
    return Project(shutil.copytree(predicted_folder, tmp_path / "data") / "cells.svetlana", annotator="ann")


@pytest.fixture
def volume(tmp_path: Path) -> Project:
    """Project with a volume, two annotated objects and no predictions."""
    project = Project(tmp_path / "volume.svetlana", classes=["dim", "bright"], annotator="ann")
    project.add("vol", *deep(), "zyx", spacing=(2.0, 0.5, 0.5))
    project.annotate("vol", 1, "dim")
    project.annotate("vol", 2, "bright")
    return project
