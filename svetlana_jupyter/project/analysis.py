"""What an analysis goes on with: counts beside those of a person, and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, get_args

from svetlana_jupyter.core.classes import ClassScheme
from svetlana_jupyter.core.tables import TableSource
from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.counting import images_with_conditions
from svetlana_jupyter.project.manual import CountComparison, compare_counts
from svetlana_jupyter.project.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Value = Literal["fraction", "count"]


class Analysis(Results):
    """Results that are compared with other counts, and plotted."""

    def compare_counts(
        self,
        manual: TableSource | Mapping[str, float],
        class_name: str | None = None,
        *,
        exclude_border: bool = False,
        size: tuple[float | None, float | None] = (None, None),
    ) -> CountComparison:
        """Compare the counts of a class with those of a person, well by well or image by image.

        Parameters
        ----------
        manual : path, DataFrame or mapping
            A CSV or table with a column called like a grouping column ("well") or "image", and either "class" and
            "count" or a column called like the class; other columns, a treatment say, are kept. Or the count of each
            image by its name.
        class_name : str, optional
            Which class, where the table counts several.
        exclude_border, size
            What is left out, as for `counts`.

        Returns
        -------
        CountComparison
            ``slope``, ``intercept``, ``r2``, ``bias``, ``limits`` (95 % limits of agreement), ``n``, the ``table``, and
            ``figure()``: the paper's Fig. 4 h with the plot of Bland and Altman.

        Raises
        ------
        InputError
            If no row of the table fits, or fewer than three do.
        """
        found = compare_counts(self, manual, class_name, exclude_border, size)
        self.status = str(found)
        return found

    def plot_counts(
        self,
        by: Sequence[str] | str = (),
        conditions: TableSource | None = None,
        *,
        replicates: Sequence[str] | str | None = None,
        classes: Sequence[str] | str | None = None,
        value: Value = "fraction",
        exclude_border: bool = False,
        size: tuple[float | None, float | None] = (None, None),
    ) -> Figure:
        """Plot the counts of the classes: a point a replicate, with their mean and its 95 % interval.

        Parameters
        ----------
        by : str or sequence of str
            What makes the groups along the axis, as for `counts`: "dose", "image", ...
        conditions : path or DataFrame, optional
            As for `counts`.
        replicates : str or sequence of str, optional
            What a point stands for: "well", "patient", ... By default all grouping columns, or the image where there
            are none. Where each group is a single image, the interval is over its objects.
        classes : str or sequence of str, optional
            Which classes are shown; all by default.
        value : {"fraction", "count"}
        exclude_border, size
            As for `counts`.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from svetlana_jupyter.project.plots.counts import plot_counts

        if value not in get_args(Value):
            raise InputError(f"value is “fraction” or “count”, got {value!r}.")
        by = [by] if isinstance(by, str) else list(by)
        names = [classes] if isinstance(classes, str) else list(classes or self.classes.names)
        chosen = {self.classes.by_name(name).name for name in names}
        images, _ = images_with_conditions(self, conditions)
        if replicates is None:
            own = sorted({column for entry in self.images.values() for column in entry.groups})
            points = [column for column in images.columns if column in own] or ["image"]
        else:
            points = [replicates] if isinstance(replicates, str) else list(replicates)
        points = [column for column in points if column not in by]
        if "image" in by:
            points = []
        table = self.counts([*by, *points], conditions, exclude_border=exclude_border, size=size)
        if not table["total"].any():
            raise ProjectError("nothing is counted yet: predict first with project.predict(), or annotate objects.")
        shown = ClassScheme(info for info in self.classes if info.name in chosen)
        return plot_counts(table[table["class"].isin(chosen)], by, points, shown, value)

    def plot_gallery(self, n: int = 8) -> Figure:
        """Plot the ``n`` objects of each class that the classifier is most certain and least certain of.

        Objects that a person has annotated are left out. Each is shown with its outline and probability.
        """
        from svetlana_jupyter.project.plots.gallery import plot_gallery

        if n < 1:
            raise InputError(f"a gallery shows at least one object of each class, got n={n}.")
        table = self.predictions()
        table = table[table["predicted"].notna() & table["annotation"].isna()]
        if table.empty:
            raise ProjectError("nothing is predicted yet; call project.predict() first.")
        return plot_gallery(self, table, n)

    def plot_confusion(self, run: str | None = None) -> Figure:
        """Plot which classes a run takes for which, on the objects that `evaluate` scores it by."""
        from svetlana_jupyter.project.plots.confusion import plot_confusion

        report = self.evaluate(run)
        if report.network is None:
            raise ProjectError(f"it is not known how often run {report.run} is right: {report.text}")
        title = f"run {report.run}, {report.source}: {report.network.accuracy.value:.1%} right"
        return plot_confusion(report.network.confusion, self.classes, title)
