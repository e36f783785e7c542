"""Samples with known classes: generated from a seed, or shipped with the package."""

from svetlana_jupyter.samples.generated import (
    bright_foci_3d,
    faint_foci,
    gray_cells,
    oriented_textures,
    osteoclast_well,
    real_textures,
    stripes,
    tube_and_somites,
)
from svetlana_jupyter.samples.sample import Sample, StoredSample, draw_labels, tile_sample
from svetlana_jupyter.samples.shipped import blood_smear, blood_smear_classes

__all__ = [
    "Sample",
    "StoredSample",
    "blood_smear",
    "blood_smear_classes",
    "bright_foci_3d",
    "draw_labels",
    "faint_foci",
    "gray_cells",
    "oriented_textures",
    "osteoclast_well",
    "real_textures",
    "stripes",
    "tile_sample",
    "tube_and_somites",
]
