"""Samples with known classes: made from a seed, or shipped with the package."""

from svetlana_jupyter.core.samples.plane import gray_cells, oriented_textures, real_textures
from svetlana_jupyter.core.samples.sample import Sample, StoredSample
from svetlana_jupyter.core.samples.shipped import blood_smear, blood_smear_classes
from svetlana_jupyter.core.samples.stripes_and_foci import bright_foci_3d, draw_labels, faint_foci, stripes
from svetlana_jupyter.core.samples.tiled import tile_sample
from svetlana_jupyter.core.samples.tube import tube_and_somites
from svetlana_jupyter.core.samples.well import osteoclast_well

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
