"""Samples with known classes: made from a seed, or shipped with the package."""

from svetlana_jupyter.core.samples.sample import Sample, StoredSample
from svetlana_jupyter.core.samples.shipped import blood_smear
from svetlana_jupyter.core.samples.stripes_and_foci import bright_foci_3d, draw_labels, faint_foci, stripes

__all__ = ["Sample", "StoredSample", "blood_smear", "bright_foci_3d", "draw_labels", "faint_foci", "stripes"]
