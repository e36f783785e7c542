"""Class counts and estimated fractions per group, and manual counts.

Conditions, such as the dose of each well, are read from a table of the user. Predicted classes are counted as they are;
the fractions are estimated with intervals from labels that were drawn at random (`project.class_fractions`). The
comparison with manual counts shows Fig. 4 h of the paper and a Bland–Altman plot of the differences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from svetlana_jupyter.core.groups import sampling_units, unit_columns
from svetlana_jupyter.core.io.table_files import (
    TableSource,
    choose_key_columns,
    find_column,
    format_list,
    join_conditions,
    match_names,
    match_rows,
    read_table,
    same_case,
)
from svetlana_jupyter.core.stats.agreement import Agreement, agreement
from svetlana_jupyter.core.stats.metrics import EXCLUSION_REASONS, count_classes, exclusion_reasons
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.evaluation import outdated_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from svetlana_jupyter.core.classes import ClassScheme
    from svetlana_jupyter.project.class_fractions import ClassFractions

ESTIMATES = ("estimate", "fraction", "low", "high", "method", "note")
COUNT_COLUMNS = ("class", "count", "total", *ESTIMATES[:-1], "left_out", *EXCLUSION_REASONS, "note")
COUNT_COLUMN_NAMES = ("count", "manual", "manual count", "counted", "cells", "objects", "n", "number")

Groups = Mapping[str, Mapping[str, str]]
Size = tuple[float | None, float | None]


def list_columns(by: Sequence[str] | str | None) -> list[str]:
    """Return column names as a list, none of them for None."""
    if by is not None and not isinstance(by, Iterable):
        raise InputError(f'Cannot count by {by!r}. Pass the name of a column, such as "image", or a list of names.')
    return [by] if isinstance(by, str) else [str(column) for column in by or ()]


def count_objects(
    table: pd.DataFrame,
    groups: Groups,
    classes: ClassScheme,
    source: ClassFractions,
    by: Sequence[str] | str = (),
    conditions: TableSource | None = None,
    units: Sequence[str] | None = None,
    exclude_border: bool = False,
    size: Size = (None, None),
) -> tuple[pd.DataFrame, str]:
    """Count the objects of each class, per image, grouping column or condition.

    Parameters
    ----------
    table : DataFrame
        Predictions, one row per object (`core.predictions.object_table`).
    groups : mapping of image name to mapping
        The grouping columns of each image.
    classes : ClassScheme
    source : ClassFractions
        Estimator of the fractions.
    by : str or sequence of str
        "image", grouping columns or condition columns; by default all objects are counted together.
    conditions : path or DataFrame, optional
        Conditions per image or well (`core.io.table_files.join_conditions`).
    units : sequence of str, optional
        Columns that name the sampling units of the intervals; by default `core.groups.unit_columns`.
    exclude_border, size
        As for `Project.counts`.

    Returns
    -------
    counts : DataFrame
        One row per group and class, see `Project.counts`.
    remark : str
        A sentence about rows and images without a match; "" if there are none.

    Raises
    ------
    InputError
        If a column does not exist, or ``size`` is not a valid range.
    """
    by = list_columns(by)
    size = _check_size(size)
    images, remark = images_with_conditions(groups, conditions)
    table = table.reset_index()
    if unknown := [column for column in by if column not in table and column not in images]:
        choices = ", ".join(sorted(["image", *images.columns]))
        raise InputError(f"There is no column {unknown[0]!r} to count by. Choose among {choices}.")
    new = [str(column) for column in images if column not in table]
    table = table.join(images[new], on="image")
    counts = count_classes(table, classes.names, by, exclude_border, size)
    reasons = exclusion_reasons(table, exclude_border, size).to_numpy()
    counts = _add_estimates(counts, table, by, reasons, _sampling_units(images, groups, by, units, source), source)
    return _insert_constant(counts, table, by, [column for column in new if column not in by]), remark


def images_with_conditions(groups: Groups, conditions: TableSource | None) -> tuple[pd.DataFrame, str]:
    """Return the grouping columns and conditions of each image.

    Returns
    -------
    images : DataFrame
        One row per image.
    remark : str
        A sentence about rows and images without a match; "" if there are none.
    """
    index = pd.Index(list(groups), name="image", dtype="object")
    images = pd.DataFrame(list(groups.values()), index)
    if conditions is None:
        return images, ""
    joined, remark = join_conditions(images, conditions)
    if reserved := [column for column in joined if column in COUNT_COLUMNS]:
        raise InputError(f"The condition {reserved[0]!r} has the name of a result column. Rename the condition.")
    return images.join(joined), remark


def _add_estimates(
    counts: pd.DataFrame,
    table: pd.DataFrame,
    by: Sequence[str],
    reasons: NDArray[np.object_],
    units: Mapping[str, str],
    source: ClassFractions,
) -> pd.DataFrame:
    """Add the estimated fractions of each group to its counts.

    Parameters
    ----------
    counts : DataFrame
        One row per group and class, in the order of the groups.
    table : DataFrame
        One row per object, with ``image`` and the columns ``by``.
    by : sequence of str
    reasons : object array of shape (n,)
        Why each object is not counted; "" for counted objects.
    units : mapping of image name to str
        The sampling unit of each image.
    source : ClassFractions
    """
    if counts.empty:
        return counts.reindex(columns=[*by, *COUNT_COLUMNS])
    grouped = table.groupby(list(by), sort=True, observed=True, dropna=False) if by else [((), table)]
    groups = [rows.index.to_numpy() for _, rows in grouped]
    counted = [rows[reasons[rows] == ""] for rows in groups]
    estimates = iter(source.estimate(table, [rows for rows in counted if len(rows)], units))
    waiting = source.is_waiting(table) & (reasons == "not_predicted")
    k, parts = len(counts) // len(groups), []
    for number, rows in enumerate(groups):
        part = counts.iloc[number * k : (number + 1) * k]
        if not len(counted[number]):
            parts.append(part.assign(**dict.fromkeys(ESTIMATES[:4], np.nan), method="", note=""))
            continue
        estimate = next(estimates)
        fraction, low, high, method, _ = estimate
        note: str | list[str] = source.explain(estimate)
        if method != "corrected":  # exactly the count, which follows the class decisions
            fraction = (part["count"] / part["total"]).to_numpy()
        if waiting[rows].any():  # the annotated objects of these images alone would bias the interval
            names = format_list(pd.unique(table["image"].to_numpy()[rows[waiting[rows]]]), 3)
            low = high = np.full(k, np.nan)
            note = f"No interval: these images are not predicted yet: {names}. Call project.predict()."
        if outdated := source.outdated.intersection(table["image"].to_numpy()[rows]):
            notes = [note] * k if isinstance(note, str) else note
            note = [f"{outdated_text(sorted(outdated))} {text}".strip() for text in notes]
        values = {"estimate": fraction * part["total"], "fraction": fraction, "low": low, "high": high}
        parts.append(part.assign(**values, method=method, note=note))
    return pd.concat(parts, ignore_index=True)[[*by, *COUNT_COLUMNS]]


def _sampling_units(
    images: pd.DataFrame, groups: Groups, by: Sequence[str], units: Sequence[str] | None, source: ClassFractions
) -> dict[str, str]:
    if units is not None:
        rows = images.assign(image=images.index).to_dict("index").items()
        known = {str(image): {str(k): v for k, v in row.items() if not pd.isna(v)} for image, row in rows}
        return sampling_units(known, units)
    columns = dict.fromkeys(column for values in groups.values() for column in values)
    return sampling_units(groups, source.hold_out_by or unit_columns(columns, by))


def _insert_constant(counts: pd.DataFrame, table: pd.DataFrame, by: list[str], columns: list[str]) -> pd.DataFrame:
    """Insert the columns that have a single value in each group of objects."""
    values = table.groupby(by or np.zeros(len(table)), dropna=False)[columns].nunique(dropna=False)
    constant = values.columns[values.max() == 1]
    if not len(constant):
        return counts
    first = (table.drop_duplicates(by) if by else table.head(1))[[*by, *constant]]
    return first.merge(counts, "right", on=by) if by else first.merge(counts, "cross")


def _check_size(size: Size) -> Size:
    try:
        low, high = size
        if low is not None and high is not None and low > high:
            raise ValueError
    except (TypeError, ValueError):
        raise InputError(
            f"size must be the smallest and the largest size in pixels, got {size!r}. Pass for example (50, 2000) or "
            "(50, None)."
        ) from None
    return low, high


@dataclass(frozen=True)
class CountComparison:
    """Manual counts and the project's counts of one class.

    Attributes
    ----------
    class_name : str
    table : DataFrame
        One row per well (or image, ...): its name, the other columns of the manual table, ``manual`` (manual count),
        ``counted`` (``estimate`` of `Project.counts`; ``count`` without an estimate), ``left_out``
        (objects without a class, which are not counted),
        ``difference`` (``counted`` minus ``manual``) and ``mean`` of both counts.
    agreement : Agreement
    unmatched : str
        A sentence about rows without a match; "" if all match.
    """

    class_name: str
    table: pd.DataFrame
    agreement: Agreement
    unmatched: str = ""

    @property
    def n(self) -> int:
        """The number of compared wells or images."""
        return self.agreement.n

    @property
    def slope(self) -> float:
        """Slope of the regression line of the project's counts on the manual counts."""
        return self.agreement.slope

    @property
    def intercept(self) -> float:
        """Intercept of the regression line of the project's counts on the manual counts."""
        return self.agreement.intercept

    @property
    def r2(self) -> float:
        """Coefficient of determination of the regression line."""
        return self.agreement.r2

    @property
    def bias(self) -> float:
        """Mean difference, counted minus manual."""
        return self.agreement.bias

    @property
    def limits(self) -> tuple[float, float]:
        """95 % limits of agreement of the differences, counted minus manual."""
        return self.agreement.limits

    def __str__(self) -> str:
        return f"{self.class_name}: {self.agreement}." + (f" {self.unmatched}" if self.unmatched else "")

    def figure(self, by: str | None = None) -> Figure:
        """Plot the counts with a regression line, and their differences (Bland–Altman).

        Parameters
        ----------
        by : str, optional
            A column of ``table``, for example a treatment, that sets the color and marker of the points.
        """
        from svetlana_jupyter.project.plots import plot_agreement

        return plot_agreement(self.table, self.agreement, self.class_name, by)


def compare_counts(
    table: pd.DataFrame,
    groups: Groups,
    classes: ClassScheme,
    source: ClassFractions,
    manual: TableSource | Mapping[str, float],
    class_name: str | None = None,
    exclude_border: bool = False,
    size: Size = (None, None),
) -> CountComparison:
    """Compare the counts of one class with manual counts.

    Parameters
    ----------
    table : DataFrame
        Predictions, one row per object.
    groups : mapping of image name to mapping
        The grouping columns of each image.
    classes : ClassScheme
    manual, class_name
        See `Project.compare_counts`.
    source, exclude_border, size
        See `count_objects`.

    Raises
    ------
    InputError
        If the manual table has no usable columns, or fewer than three rows match.
    """
    if isinstance(manual, Mapping):
        manual = pd.DataFrame({"image": list(manual), "count": list(manual.values())})
    images = images_with_conditions(groups, None)[0].reset_index(names="image")
    keys, sheet = choose_key_columns(read_table(manual, "a table of counts"), images, "the table of counts")
    name, values = _manual_counts(classes, sheet, list(keys.values()), class_name)
    known = images[list(keys)].drop_duplicates(ignore_index=True)
    partner, unmatched = match_rows(known, values, keys, "the table of counts")
    counts, _ = count_objects(table, groups, classes, source, list(keys), None, None, exclude_border, size)
    counts = counts[counts["class"] == name].assign(counted=counts["estimate"].fillna(counts["count"]))[
        [*keys, "counted", "left_out"]
    ]
    others = [str(column) for column in values if column not in (*keys.values(), *known, *counts, "manual")]
    matched = known.assign(**{column: values[column].reindex(partner).to_numpy() for column in ("manual", *others)})
    matched = matched[partner >= 0].merge(counts, on=list(keys))
    matched["difference"] = matched["counted"] - matched["manual"]
    matched["mean"] = (matched["counted"] + matched["manual"]) / 2
    matched = matched[[*keys, *others, "manual", "counted", "left_out", "difference", "mean"]]
    return CountComparison(name, matched, agreement(matched["manual"], matched["counted"]), unmatched)


def _manual_counts(
    classes: ClassScheme, table: pd.DataFrame, keys: list[str], class_name: str | None
) -> tuple[str, pd.DataFrame]:
    """Return the class to compare, and a table of its manual counts."""
    values = table.drop(columns=keys)
    class_column = find_column(values, ("class", "class name", "label"))
    wide: dict[str, str] = {}
    if class_column is None:  # one column per class, or a single column of counts
        wide = {name: column for column, name in match_names(map(str, values), classes.names).items()}
        present = list(wide or classes.names)
    else:  # one column of classes and one of counts
        texts = table[class_column].dropna().astype(str)
        spelled, alike = match_names(texts, classes.names), set(map(same_case, classes.names))
        if unclear := [text for text in texts.unique() if text not in spelled and same_case(text) in alike]:
            raise InputError(
                f"Several names in the table of counts differ from a class in upper and lower case only, such as "
                f"{unclear[0]!r}. Spell each class as in the project."
            )
        names = texts.map(spelled).reindex(table.index)
        present = names.dropna().unique().tolist()
    if class_name is not None:
        class_name = classes.by_name(class_name).name
    elif len(present) != 1:
        raise InputError(
            f"Counts are compared for one class at a time. Pass class_name=, one of {format_list(classes.names)}."
        )
    else:
        (class_name,) = present
    if class_column is not None:
        if class_name not in present:
            raise InputError(f"The table of counts has no row for the class {class_name!r}. Pass another class_name=.")
        table, values = table[names == class_name], values.drop(columns=[class_column])
    column = wide.get(class_name) or find_column(values, COUNT_COLUMN_NAMES)
    if column is None:
        numeric = list(map(str, values.select_dtypes("number")))
        if len(numeric) != 1:
            raise InputError(
                f"The table of counts has no column “count” or {class_name!r}; its columns are "
                f"{format_list(table.columns, 8)}. Rename the column of counts."
            )
        (column,) = numeric
    counts = pd.to_numeric(table[column], errors="coerce")
    invalid = table[column][counts.isna() & table[column].notna() | (counts < 0)]
    if len(invalid):
        raise InputError(f"The column {column!r} contains {invalid.iloc[0]}. Counts must be numbers of 0 or more.")
    result = table.drop(columns=[class_column, column], errors="ignore").assign(manual=counts.astype(float))
    return class_name, result.dropna(subset="manual").reset_index(drop=True)
