"""Which annotated objects a training learns from: none at the border or of another size, where its settings say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from svetlana_jupyter.core.statistics import exclusion_reasons

if TYPE_CHECKING:
    from svetlana_jupyter.project.blind import Blind

Size = tuple[float | None, float | None]


def select_training_objects(project: Blind, exclude_border: bool, size: Size | None) -> tuple[pd.DataFrame, str]:
    """Return the rows of `Blind.training_labels` that a training learns from, and a sentence about the others.

    Parameters
    ----------
    exclude_border : bool
        Whether objects that touch the border of their image are left out.
    size : tuple of float or None, optional
        Pixels (voxels) that an object must have at least, and at most.

    Returns
    -------
    labels : DataFrame
    says : str
        "" where none is left out.
    """
    labels = project.training_labels()
    if labels.empty or not (exclude_border or any(bound is not None for bound in size or ())):
        return labels, ""
    tables = [
        project.objects(str(image)).reindex(rows.index.get_level_values("object")).set_axis(rows.index)
        for image, rows in labels.groupby(level="image", sort=False)
    ]
    # Annotated they are; only where they lie and how large they are is asked.
    table = pd.concat(tables).loc[labels.index, ["on_border", "size"]].assign(**{"class": "any"})
    reason = exclusion_reasons(table, exclude_border, size or (None, None))
    border, other = (int((reason == why).sum()) for why in ("border", "size"))
    parts = [f"{border:,} at the border of their image"] * bool(border) + [f"{other:,} by their size"] * bool(other)
    return labels[reason == ""], f"Annotated objects left out of training: {' and '.join(parts)}." if parts else ""
