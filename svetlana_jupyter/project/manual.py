"""The project's counts beside those of a person: the paper's Fig. 4 h, with Bland and Altman's differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from svetlana_jupyter.core.agreement import Agreement, agreement
from svetlana_jupyter.core.conditions import choose_key_columns, match_rows
from svetlana_jupyter.core.tables import TableSource, find_column, format_list, plain, read_table
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.counting import counts, images_with_conditions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from svetlana_jupyter.project.results import Results

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
        from svetlana_jupyter.project.plots.agreement import plot_agreement

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
    label, spelled = find_column(rest, ("class", "class name", "label")), {plain(name): name for name in names}
    wide = {spelled[plain(column)]: str(column) for column in rest if plain(column) in spelled}
    if label is not None:
        asked = {name: name for name in dict.fromkeys(table[label].astype(str).str.strip())}
        said = {spelled.get(plain(name), name): name for name in asked}
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
