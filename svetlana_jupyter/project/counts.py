"""Counts of the classes of a project, with the conditions of a table, and beside those of a person.

Counts of a project corrected by its test set, the only objects of which both prediction and truth are unbiased.

The project's counts beside those of a person: the paper's Fig. 4 h, with Bland and Altman's differences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from svetlana_jupyter.core.io.table_files import (
    TableSource,
    choose_key_columns,
    find_column,
    format_list,
    join_conditions,
    match_rows,
    normalize_header,
    read_table,
)
from svetlana_jupyter.core.stats.agreement import Agreement, agreement
from svetlana_jupyter.core.stats.count_correction import ConfusionRates, correct, estimate_confusion_rates
from svetlana_jupyter.core.stats.metrics import LEFT_OUT, count_classes, exclusion_reasons
from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.evaluation import test_set_predictions
from svetlana_jupyter.project.test_set import FEWEST

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from svetlana_jupyter.project.project import Results

CORRECTED_COLUMNS = ("corrected", "corrected_low", "corrected_high")


def corrected_counts(project: Results, counted: pd.DataFrame, by: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """Return how many objects of each class there are: those annotated, and those predicted as the test set corrects.

    Parameters
    ----------
    counted : DataFrame
        The objects that are counted, with ``image``, ``object``, ``class``, ``annotation`` and the columns ``by``.

    Returns
    -------
    DataFrame
        The columns ``by``, ``class`` and `CORRECTED_COLUMNS`, one row a group and class.
    str
        What is to be said of classes that the test set has no object of.

    Raises
    ------
    ProjectError
        If there is no test set, or it does not say enough.
    """
    found, says = _recognition(project, counted)
    names = list(project.classes.names)
    rows = []
    for key, group in counted.groupby(list(by), observed=True, dropna=False) if by else [((), counted)]:
        said = group["annotation"].notna()
        certain, guessed = (
            group["class"][which].value_counts().reindex(names, fill_value=0).to_numpy(np.int64)
            for which in (said, ~said)
        )
        bounds = zip(*(certain + part for part in correct(found, guessed)))
        rows += [(*key, name, *values) for name, values in zip(names, bounds)]
    return pd.DataFrame(rows, columns=[*by, "class", *CORRECTED_COLUMNS]), says


def _recognition(project: Results, counted: pd.DataFrame) -> tuple[ConfusionRates, str]:
    """Learn how the classes are recognised from what of the test set is counted."""
    table, says = test_set_predictions(project, project.run())
    if table is None:
        raise ProjectError(
            f"Counts cannot be corrected yet. {says}"
            if says
            else "Counts are corrected by a test set, and there is none: draw one with project.draw_test_set(100) and "
            'annotate it (project.queue("test") brings it).'
        )
    ids = pd.MultiIndex.from_frame(counted[["image", "object"]])
    table = table[pd.MultiIndex.from_frame(table[["image", "object"]]).isin(ids)]
    if len(table) < FEWEST:
        raise ProjectError(
            f"Counts cannot be corrected: only {len(table)} objects of the test set are among those counted, {FEWEST} "
            "are needed."
        )
    columns = table["truth"], table["predicted"], list(project.classes.ids), table["group"], table["stands_for"]
    found = estimate_confusion_rates(*columns)
    if not found.is_invertible:
        raise ProjectError(
            "Counts cannot be corrected: on the test set, objects of different classes are predicted alike too often. "
            "Annotate more, train again, and predict."
        )
    missing = [name for name, known in zip(project.classes.names, found.known) if not known]
    return found, f"The test set has no object of {', '.join(missing)}: taken as always recognised." if missing else ""


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


COUNT = ("count", "manual", "manual count", "counted", "cells", "objects", "n", "number")


@dataclass(frozen=True)
class CountComparison:
    """Counts by a person and by the project, of one class.

    Attributes
    ----------
    class_name : str
    table : DataFrame
        One row a well (or image, ...): what it is called, whatever else the person's table says of it, ``manual``,
        ``counted``, ``left_out`` (objects without a class, which the count lacks), ``difference`` and ``mean``.
    agreement : Agreement
    unmatched : str
        A sentence about rows that found no partner; "" where all did.
    """

    class_name: str
    table: pd.DataFrame
    agreement: Agreement
    unmatched: str = ""

    @property
    def n(self) -> int:
        return self.agreement.n

    @property
    def slope(self) -> float:
        return self.agreement.slope

    @property
    def intercept(self) -> float:
        return self.agreement.intercept

    @property
    def r2(self) -> float:
        return self.agreement.r2

    @property
    def bias(self) -> float:
        """Mean of counted minus manual."""
        return self.agreement.bias

    @property
    def limits(self) -> tuple[float, float]:
        """95 % limits of agreement of counted minus manual."""
        return self.agreement.limits

    def __str__(self) -> str:
        return f"{self.class_name}: {self.agreement}." + (f" {self.unmatched}" if self.unmatched else "")

    def figure(self, by: str | None = None) -> Figure:
        """Return a matplotlib figure: counts against counts with their line, and differences with their limits.

        Parameters
        ----------
        by : str, optional
            A column of ``table`` that colours and shapes the points, a treatment for example.
        """
        from svetlana_jupyter.project.plots import plot_agreement

        return plot_agreement(self, by)


def compare_counts(
    project: Results,
    manual: TableSource | Mapping[str, float],
    class_name: str | None,
    exclude_border: bool,
    size: tuple[float | None, float | None],
) -> CountComparison:
    """Return what `Analysis.compare_counts` does."""
    if isinstance(manual, Mapping):
        manual = pd.DataFrame({"image": list(manual), "count": list(manual.values())})
    table = read_table(manual, "a table of counts")
    images, _ = images_with_conditions(project, None)
    keys, table = choose_key_columns(table, images.reset_index(names="image"))
    if not keys:
        raise InputError(
            f"a table of counts needs a column called like {format_list(['image', *images.columns])}, to say what was "
            f"counted; its columns are {format_list(table.columns, 8)}."
        )
    chosen, said = _one_class(project, table, list(keys.values()), class_name)
    known = images.reset_index(names="image")[list(keys)].drop_duplicates(ignore_index=True)
    partner, unmatched = match_rows(known, said, keys, "a table of counts")
    found = counts(project, list(keys), None, exclude_border, size)
    found = found[found["class"] == chosen].rename(columns={"count": "counted"})
    others = [column for column in said if column not in (*keys.values(), *known, *found, "manual")]
    table = known.assign(manual=said["manual"].reindex(partner).to_numpy())
    for column in others:
        table[column] = said[column].reindex(partner).to_numpy()
    table = table[partner >= 0].merge(found[[*keys, "counted", "left_out"]], on=list(keys))
    table["difference"] = table["counted"] - table["manual"]
    table["mean"] = (table["counted"] + table["manual"]) / 2
    ordered = [*keys, *others, "manual", "counted", "left_out", "difference", "mean"]
    return CountComparison(chosen, table[ordered], agreement(table["manual"], table["counted"]), unmatched)


def _one_class(
    project: Results, table: pd.DataFrame, keys: list[str], class_name: str | None
) -> tuple[str, pd.DataFrame]:
    """Return the class that was counted, and the table with its counts in a column ``manual``."""
    names = project.classes.names
    if class_name is not None:
        class_name = project.classes.by_name(class_name).name
    rest = table.drop(columns=keys)
    label, spelled = (
        find_column(rest, ("class", "class name", "label")),
        {normalize_header(name): name for name in names},
    )
    wide = {spelled[normalize_header(column)]: str(column) for column in rest if normalize_header(column) in spelled}
    if label is not None:
        asked = {name: name for name in dict.fromkeys(table[label].astype(str).str.strip())}
        said = {spelled.get(normalize_header(name), name): name for name in asked}
    else:
        said = wide
    if class_name is None:
        known = [name for name in said if name in names]
        if len(known) == 1:
            class_name = known[0]
        elif not said and len(names) == 1:
            class_name = names[0]
        else:
            raise InputError(
                f"counts are compared one class at a time; say which with class_name=, one of {format_list(names)}."
            )
    if label is None and class_name in wide:
        count: str | None = wide[class_name]
    else:
        count = find_column(rest, COUNT)
        if label is not None:
            if class_name not in said:
                raise InputError(f"the table of counts has no row of the class {class_name!r}.")
            table = table[table[label].astype(str).str.strip() == said[class_name]]
            rest = rest.drop(columns=[label])
    if count is None:
        numbers = [str(column) for column in rest if pd.api.types.is_numeric_dtype(rest[column])]
        count = numbers[0] if len(numbers) == 1 else None
    if count is None:
        raise InputError(
            f"a table of counts needs a column called “count” or {class_name!r}; its columns are "
            f"{format_list(table.columns, 8)}."
        )
    values = pd.to_numeric(table[count], errors="coerce")
    bad = table[count][values.isna() & table[count].notna() | (values < 0)]
    if len(bad):
        raise InputError(f"counts are numbers of 0 or more; the column {count!r} has {bad.iloc[0]}.")
    drop = [column for column in (count, label) if column is not None]
    result = table.drop(columns=drop).assign(manual=values.astype(float))
    return class_name, result[result["manual"].notna()].reset_index(drop=True)
