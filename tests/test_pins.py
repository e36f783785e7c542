"""Pinned dependencies: each pin is within its bounds, and Binder installs the pinned versions."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "binder" / name).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if "==" in line]
    return {canonicalize_name(package): version for package, version in pairs}


def test_every_requirement_is_pinned_within_its_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    required = [*project["dependencies"], *(name for extra in extras for name in extra)]
    pinned = pins("constraints.txt")
    for requirement in map(Requirement, required):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_binder_installs_the_pinned_torch_for_cpu():
    pinned = pins("constraints.txt")
    assert pins("requirements.txt") == {name: f"{pinned[name]}+cpu" for name in ("torch", "torchvision")}
