"""Real images that come with the package."""

from __future__ import annotations

from pathlib import Path

import pandas as pd


def blood_smear() -> Path:
    """Return the folder of twelve stained blood smears: red cells, white cells and platelets, with their classes.

    ``images/NAME.png`` (RGB), ``masks/NAME.tif`` (uint16) and ``classes/NAME.csv`` (columns ``label,class``) belong
    together; ``SOURCE.md`` says where they come from and under which licence. Nothing is downloaded.

    Examples
    --------
    >>> from svetlana_jupyter.samples import blood_smear
    >>> len(list((blood_smear() / "images").glob("*.png")))
    12
    """
    return Path(__file__).with_name("data") / "blood_smear"


def blood_smear_classes() -> dict[tuple[str, int], str]:
    """Return the true class of each object of `blood_smear`, by ``(image, object)``.

    Examples
    --------
    >>> from svetlana_jupyter.samples import blood_smear_classes
    >>> sorted(set(blood_smear_classes().values()))
    ['RBC', 'WBC', 'platelet']
    """
    known = {}
    for file in sorted((blood_smear() / "classes").glob("*.csv")):
        table = pd.read_csv(file)
        known.update({(file.stem, int(label)): str(name) for label, name in zip(table["label"], table["class"])})
    return known
