"""The patch that a person is shown is the one that a classifier is given."""

from __future__ import annotations

import numpy as np
import pytest

from svetlana_jupyter.core.patches import cut_patches
from svetlana_jupyter.core.samples import bright_foci_3d, grey_cells
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.patches import patch_settings, seen_patch
from svetlana_jupyter.project.project import Project


@pytest.fixture(params=["plane", "volume"])
def cells(request, tmp_path):
    """A project with one image, nothing annotated."""
    sample = grey_cells(0, size=300, count=30) if request.param == "plane" else bright_foci_3d(0)
    made = Project(tmp_path / "cells.svetlana", classes=["a", "b"])
    made.add("cells", sample.image, sample.mask, axes="yx" if request.param == "plane" else "zyx")
    return made


def test_before_any_training_the_patch_is_what_a_training_would_cut(cells):
    settings = patch_settings(cells, "cells")
    objects = cells.objects("cells")
    assert settings.is_frozen
    cut = {
        object: pixels
        for labels, patches in cut_patches(cells.pair("cells"), objects, settings)
        for object, pixels in zip(labels, patches)
    }
    for object in objects.index[:5]:
        patch = seen_patch(cells, "cells", int(object), settings)
        np.testing.assert_allclose(patch.to_numpy(), cut[object], rtol=1e-5, atol=1e-5)
        assert patch["c"].values[-1] == "mask" and patch.sizes["c"] == len(cut[object])
        middle = objects.loc[object, ["y", "x"]].to_numpy(float)
        seen = [float((patch[axis][0] + patch[axis][-1]) / 2) for axis in "yx"]
        assert np.abs(np.subtract(seen, middle)).max() <= 1


def test_with_annotations_the_settings_are_those_that_a_training_freezes(cells):
    objects = cells.objects("cells").index
    for object in objects[:8]:
        cells.annotate("cells", int(object), "a" if object % 2 else "b")
    run = cells.train(architecture="forest", trees=10)
    frozen = patch_settings(cells, "cells")
    assert list(frozen.size) == list(run.settings["patches"]["size"])
    assert list(frozen.sampling) == list(run.settings["patches"]["sampling"])


def test_an_object_that_is_not_there_is_refused(cells):
    with pytest.raises(InputError, match="cells has no object 9999"):
        seen_patch(cells, "cells", 9999, patch_settings(cells, "cells"))
