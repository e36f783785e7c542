"""Lazy imports: `import svetlana_jupyter` loads no heavy library, and every public name resolves."""

from __future__ import annotations

import subprocess
import sys

import svetlana_jupyter as sv

HEAVY = {
    "albumentations", "anywidget", "cv2", "dask", "h5py", "ipycanvas", "ipywidgets", "matplotlib", "numpy", "pandas",
    "pyarrow", "pydantic", "pytorch_grad_cam", "scipy", "skimage", "sklearn", "tifffile", "torch", "torchvision",
    "xarray", "zarr",
}  # fmt: skip


def modules_after(statement: str) -> set[str]:
    """Return the top-level modules that a new interpreter has loaded after `statement`."""
    listing = f"{statement}\nimport sys\nsys.stdout.write(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout
    return {name.partition(".")[0] for name in loaded.split()}


def test_importing_the_package_loads_no_heavy_library():
    assert not modules_after("import svetlana_jupyter") & HEAVY


def test_the_check_detects_a_heavy_import():
    assert "numpy" in modules_after("import svetlana_jupyter, numpy") & HEAVY


def test_project_is_imported_without_torch_or_canvas():
    loaded = modules_after("import svetlana_jupyter as sv; sv.Project")
    assert not loaded & {"torch", "torchvision", "albumentations", "sklearn", "ipycanvas", "anywidget"}


def test_the_workspace_draws_the_first_picture_without_libraries_that_only_other_tabs_need(tmp_path):
    blood = sv.samples.blood_smear()
    project = sv.Project(tmp_path / "blood.svetlana", classes=["RBC", "WBC"])
    project.add_images(f"{blood}/images/{{smear}}.png", masks=f"{blood}/masks/{{smear}}.tif")
    project.annotations.file.close()
    opened = f"import svetlana_jupyter as sv\napp = sv.App({str(project.path)!r})"
    loaded = modules_after(f"{opened}\nassert app.panels['Label'].viewer.model.scene is not None")
    assert "ipycanvas" in loaded
    assert not loaded & {"distributed", "matplotlib", "sklearn", "torch"}


def test_every_public_name_resolves_and_is_listed():
    assert sorted(set(sv.__all__)) == sorted(sv.__all__)
    for name in sv.__all__:
        assert getattr(sv, name) is not None
    assert set(sv.__all__) <= set(dir(sv))
