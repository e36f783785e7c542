"""Class counts per group, corrected counts, and comparison with manual counts.

Conditions, such as the dose of each well, are read from a table of the user. Corrected counts use the annotated test
set, because only its objects have both an unbiased prediction and an unbiased label. The comparison with manual counts
shows Fig. 4 h of the paper and a Bland–Altman plot of the differences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    match_names,
    match_rows,
    read_table,
    same_case,
)
from svetlana_jupyter.core.stats.agreement import Agreement, agreement
from svetlana_jupyter.core.stats.count_correction import ConfusionRates, estimate_confusion_rates, solve_counts
from svetlana_jupyter.core.stats.metrics import EXCLUSION_REASONS, count_classes, exclusion_reasons
from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.test_set import MIN_ANNOTATED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from svetlana_jupyter.core.classes import ClassScheme

CORRECTED = ("corrected", "corrected_low", "corrected_high")
COUNT_COLUMNS = ("class", "count", "total", "fraction", "low", "high", *CORRECTED, "left_out", *EXCLUSION_REASONS)
COUNT_COLUMN_NAMES = ("count", "manual", "manual count", "counted", "cells", "objects", "n", "number")

Groups = Mapping[str, Mapping[str, str]]
Size = tuple[float | None, float | None]
TestPredictions = tuple[pd.DataFrame | None, str]  # see `project.evaluation.test_set_predictions`


def list_columns(by: Sequence[str] | str | None) -> list[str]:
    """Return column names as a list, none of them for None."""
    if by is not None and not isinstance(by, Iterable):
        raise InputError(f'Cannot count by {by!r}. Pass the name of a column, such as "image", or a list of names.')
    return [by] if isinstance(by, str) else [str(column) for column in by or ()]


def count_objects(
    table: pd.DataFrame,
    groups: Groups,
    classes: ClassScheme,
    by: Sequence[str] | str = (),
    conditions: TableSource | None = None,
    exclude_border: bool = False,
    size: Size = (None, None),
    test: TestPredictions | None = None,
) -> tuple[pd.DataFrame, str]:
    """Count the objects of each class, per image, grouping column or condition.

    Parameters
    ----------
    table : DataFrame
        Predictions, one row per object (`core.predictions.object_table`).
    groups : mapping of image name to mapping
        The grouping columns of each image.
    classes : ClassScheme
    by : str or sequence of str
        "image", grouping columns or condition columns; by default all objects are counted together.
    conditions : path or DataFrame, optional
        Conditions per image or well (`core.io.table_files.join_conditions`).
    exclude_border, size
        As for `Project.counts`.
    test : (DataFrame or None, str), optional
        Predictions of the test set, or the reason why there are none (`project.evaluation.test_set_predictions`). If
        given, corrected counts are added.

    Returns
    -------
    counts : DataFrame
        One row per group and class, see `Project.counts`.
    remark : str
        A sentence about rows and images without a match, and about classes without test objects; "" if there are none.

    Raises
    ------
    InputError, ProjectError
        If a column does not exist, ``size`` is not a valid range, or counts cannot be corrected.
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
    if test is not None:
        counted = table[exclusion_reasons(table, exclude_border, size) == ""]
        rates, missing = _estimate_rates(*test, counted, classes)
        counts = counts.merge(_correct_counts(rates, counted, by, classes.names), "left", on=[*by, "class"])
        counts = counts[[*by, *COUNT_COLUMNS]]
        remark = " ".join(filter(None, [remark, missing]))
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


def _correct_counts(
    rates: ConfusionRates, counted: pd.DataFrame, by: Sequence[str], class_names: Sequence[str]
) -> pd.DataFrame:
    """Correct the number of predicted objects by the confusion rates.

    Annotated objects count with their annotated class; the correction applies to all other objects.

    Parameters
    ----------
    rates : ConfusionRates
    counted : DataFrame
        The counted objects, with ``class``, ``annotation`` and the columns ``by``.
    by : sequence of str
    class_names : sequence of str

    Returns
    -------
    DataFrame
        One row per group and class, with the columns ``by``, ``class`` and `CORRECTED`.
    """
    rows = []
    for key, group in counted.groupby(list(by), observed=True, dropna=False) if by else [((), counted)]:
        annotated = group["annotation"].notna()
        certain, predicted = (
            group["class"][chosen].value_counts().reindex(list(class_names), fill_value=0).to_numpy(np.int64)
            for chosen in (annotated, ~annotated)
        )
        bounds = zip(*(certain + part for part in solve_counts(rates, predicted)))
        rows += [(*key, name, *values) for name, values in zip(class_names, bounds)]
    return pd.DataFrame(rows, columns=[*by, "class", *CORRECTED])


def _estimate_rates(
    table: pd.DataFrame | None, reason: str, counted: pd.DataFrame, classes: ClassScheme
) -> tuple[ConfusionRates, str]:
    """Estimate the confusion rates of the classes on the test set.

    Parameters
    ----------
    table : DataFrame or None
        Predictions of the test set; only its objects that are also in ``counted`` are used.
    reason : str
        The reason why there are no predictions; "" without a test set.
    counted : DataFrame
        The counted objects, with ``image`` and ``object``.
    classes : ClassScheme

    Returns
    -------
    rates : ConfusionRates
    remark : str
        A sentence about classes without a test object; "" if there are none.

    Raises
    ------
    ProjectError
        If there is no test set, or if the rates cannot be estimated from it.
    """
    if table is None:
        raise ProjectError(
            f"Counts cannot be corrected yet. {reason}"
            if reason
            else "Counts cannot be corrected without a test set. Draw one with project.test_set.draw(100) and annotate "
            'it with project.queue("test").'
        )
    ids = pd.MultiIndex.from_frame(counted[["image", "object"]])
    table = table[pd.MultiIndex.from_frame(table[["image", "object"]]).isin(ids)]
    if len(table) < MIN_ANNOTATED:
        raise ProjectError(
            f"Counts cannot be corrected: only {len(table)} objects of the test set are counted. Count at least "
            f"{MIN_ANNOTATED} objects of the test set."
        )
    group, weights = table["group"], table["stands_for"]
    rates = estimate_confusion_rates(table["truth"], table["predicted"], list(classes.ids), group, weights)
    if not rates.is_invertible:
        raise ProjectError(
            "Counts cannot be corrected: the classifier confuses two classes too often on the test set. Annotate more "
            "objects, train again and predict."
        )
    missing = [name for name, present in zip(classes.names, rates.is_observed) if not present]
    names = ", ".join(missing)
    remark = f"The test set has no object of {names}, so a recall of 100 % is assumed." if missing else ""
    return rates, remark


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
        ``counted`` (count of the project), ``left_out`` (objects without a class, which are not counted),
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
    exclude_border, size
        See `count_objects`.

    Raises
    ------
    InputError
        If the manual table has no usable columns, or fewer than three rows match.
    """
    if isinstance(manual, Mapping):
        manual = pd.DataFrame({"image": list(manual), "count": list(manual.values())})
    images = images_with_conditions(groups, None)[0].reset_index(names="image")
    keys, source = choose_key_columns(read_table(manual, "a table of counts"), images, "the table of counts")
    name, values = _manual_counts(classes, source, list(keys.values()), class_name)
    known = images[list(keys)].drop_duplicates(ignore_index=True)
    partner, unmatched = match_rows(known, values, keys, "the table of counts")
    counts, _ = count_objects(table, groups, classes, list(keys), None, exclude_border, size)
    counts = counts[counts["class"] == name].rename(columns={"count": "counted"})
    others = [str(column) for column in values if column not in (*keys.values(), *known, *counts, "manual")]
    matched = known.assign(**{column: values[column].reindex(partner).to_numpy() for column in ("manual", *others)})
    matched = matched[partner >= 0].merge(counts[[*keys, "counted", "left_out"]], on=list(keys))
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
