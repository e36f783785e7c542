"""Counts of the classes of a project, with the conditions of a table, and beside those of a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from svetlana_jupyter.core.conditions import join_conditions
from svetlana_jupyter.core.statistics import LEFT_OUT, count_classes, exclusion_reasons
from svetlana_jupyter.core.tables import TableSource
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.corrected import CORRECTED_COLUMNS, corrected_counts

if TYPE_CHECKING:
    from svetlana_jupyter.project.results import Results

COUNT_COLUMNS = ("class", "count", "total", "fraction", "low", "high", *CORRECTED_COLUMNS, "left_out", *LEFT_OUT)


def counts(
    project: Results,
    by: Sequence[str] | str,
    conditions: TableSource | None,
    exclude_border: bool,
    size: tuple[float | None, float | None],
    corrected: bool = False,
) -> pd.DataFrame:
    """Return what `Results.counts` does."""
    by = [by] if isinstance(by, str) else list(by)
    low, high = _checked(size)
    images, said = images_with_conditions(project, conditions)
    choices = ["image", *images.columns]
    table = project.predictions().reset_index()
    unknown = [column for column in by if column not in table and column not in images]
    if unknown:
        raise InputError(f"there is no column {unknown[0]!r} to count by; choose among {', '.join(sorted(choices))}.")
    new = [column for column in images if column not in table]
    table = table.join(images[new], on="image")
    result = count_classes(table, project.classes.names, by, exclude_border, (low, high))
    if corrected:
        counted = table[exclusion_reasons(table, exclude_border, (low, high)) == ""]
        beyond, unseen = corrected_counts(project, counted, by)
        result = result.merge(beyond, "left", on=[*by, "class"])
        result = result[[*by, *(column for column in COUNT_COLUMNS if column in result)]]
        said = " ".join(filter(None, [said, unseen]))
    beside = [str(column) for column in new if column not in by and _settled(table, by, str(column))]
    if beside:
        if by:
            first = table.drop_duplicates(by).set_index(by)[beside]
            result = result.merge(first, "left", left_on=by, right_index=True)
        else:
            result = result.assign(**{column: table[column].iloc[0] for column in beside})
        result = result[[*by, *beside, *(column for column in result if column not in (*by, *beside))]]
    if said:
        project.status = said
    return result


def images_with_conditions(project: Results, conditions: TableSource | None) -> tuple[pd.DataFrame, str]:
    """Return one row an image: its grouping columns and conditions; and what is to be said of rows without partner."""
    entries = project.images
    index = pd.Index(list(entries), name="image", dtype="object")
    images = pd.DataFrame([dict(entry.groups) for entry in entries.values()], index)
    if conditions is None:
        return images, ""
    found, said = join_conditions(images, conditions)
    used = [column for column in found if column in COUNT_COLUMNS]
    if used:
        raise InputError(f"a condition cannot be called {used[0]!r}, as counts have such a column; rename it.")
    return images.join(found), said


def _checked(size: tuple[float | None, float | None]) -> tuple[float | None, float | None]:
    try:
        low, high = size
        if low is not None and high is not None and low > high:
            raise ValueError
    except (TypeError, ValueError):
        raise InputError(
            f"size should be the least and the most pixels of an object, (50, 2000) or (50, None), got {size!r}."
        ) from None
    return low, high


def _settled(table: pd.DataFrame, by: Sequence[str], column: str) -> bool:
    """Whether a column has one value in each group."""
    if by:
        return bool(table.groupby(list(by), dropna=False)[column].nunique(dropna=False).max() == 1)
    return table[column].nunique(dropna=False) == 1
