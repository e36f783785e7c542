"""Table of counts with a compact display in notebooks.

As a plain table, the notes would be cut and the interval would be off the screen.
"""

from __future__ import annotations

from html import escape

import pandas as pd

from svetlana_jupyter.core.stats.metrics import EXCLUSION_REASONS

_SHOWN_ROWS = 60
_FORMATTED = ("class", "count", "total", "estimate", "fraction", "low", "high", "method")
_INTERVALS = "low to high: 95 % confidence interval of the fraction."


class CountTable(pd.DataFrame):
    """Result of `Project.counts`, displayed with rounded numbers and all notes.

    The values are not rounded. A table without the columns of counts is displayed by pandas.
    """

    @property
    def _constructor(self) -> type[CountTable]:
        return CountTable

    def _has_counts(self) -> bool:
        """Return whether the columns are still those of counts."""
        if not {*_FORMATTED, "left_out", "note"} <= {*self.columns} or not self.columns.is_unique or self.empty:
            return False
        is_number = all(pd.api.types.is_numeric_dtype(self[column]) for column in _FORMATTED[3:7])
        return is_number and bool(self[["method", "note"]].notna().all(axis=None))

    def _repr_html_(self) -> str:
        if not self._has_counts():
            return pd.DataFrame(self).to_html(max_rows=_SHOWN_ROWS, max_cols=20, show_dimensions=True, border=0)
        rows = pd.DataFrame(self).head(_SHOWN_ROWS)
        notes = [str(note) for note in rows["note"].unique() if note]
        reasons = [column for column in ("left_out", *EXCLUSION_REASONS) if column in rows and rows[column].any()]
        groups = [column for column in rows if column not in (*_FORMATTED, "left_out", *EXCLUSION_REASONS, "note")]
        shown = rows[[*groups, "class", "count", "total"]].copy()
        for column in _FORMATTED[3:7]:
            template = "{:,.1f}" if column == "estimate" else "{:.1%}"
            shown[column] = ["" if pd.isna(value) else template.format(value) for value in rows[column]]
        methods = [method for method in rows["method"].unique() if method]
        columns = ["method", *reasons] if len(methods) > 1 else [*reasons]
        shown[columns] = rows[columns]
        if len(notes) > 1:
            shown["note"] = ["" if not note else notes.index(note) + 1 for note in rows["note"]]
        numbered = [f"{i}. {note}" for i, note in enumerate(notes, 1)] if len(notes) > 1 else notes
        if len(self) > len(rows):
            numbered.append(f"{len(self) - len(rows):,} more rows are not displayed.")
        method = f" Method: {methods[0]}." if len(methods) == 1 else ""
        return _lines([_INTERVALS + method]) + shown.to_html(index=False, border=0) + _lines(numbered)


def _lines(texts: list[str]) -> str:
    return "".join(f"<div>{escape(text)}</div>" for text in texts)
