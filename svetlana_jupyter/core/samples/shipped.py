"""Real images that come with the package."""

from __future__ import annotations

from pathlib import Path


def blood_smear() -> Path:
    """Return the folder of twelve stained blood smears: red cells, white cells and platelets, with their classes.

    ``images/NAME.png`` (RGB), ``masks/NAME.tif`` (uint16) and ``classes/NAME.csv`` (columns ``label,class``) belong
    together; ``SOURCE.md`` says where they come from and under which licence. Nothing is downloaded.

    Examples
    --------
    >>> from svetlana_jupyter.core.samples import blood_smear
    >>> len(list((blood_smear() / "images").glob("*.png")))
    12
    """
    return Path(__file__).with_name("data") / "blood_smear"
