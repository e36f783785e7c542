"""Real images that are shipped with the package."""

from __future__ import annotations

from pathlib import Path

import pandas as pd


def blood_smear() -> Path:
    """Return the folder of twelve stained blood smears with known classes.

    The objects are red cells, white cells and platelets. The folder contains ``images/NAME.png`` (RGB),
    ``masks/NAME.tif`` (uint16) and ``classes/NAME.csv`` (columns ``label,class``); ``SOURCE.md`` states source and
    license. Nothing is downloaded.

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
    tables = {file.stem: pd.read_csv(file) for file in sorted((blood_smear() / "classes").glob("*.csv"))}
    return {
        (name, int(label)): str(class_name)
        for name, table in tables.items()
        for label, class_name in zip(table["label"], table["class"])
    }
