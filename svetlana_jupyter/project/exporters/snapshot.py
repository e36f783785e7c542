"""Results of a project at one moment.

All files of an export show the same results, even if the user annotates objects meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from svetlana_jupyter.core.predictions import class_map, object_dataset, probability_map
from svetlana_jupyter.project.counts import count_objects
from svetlana_jupyter.project.features import cached_measurements
from svetlana_jupyter.project.image_warnings import summarize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import xarray as xr

    from svetlana_jupyter.core.classes import ClassScheme
    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.core.settings import TrainingSettings
    from svetlana_jupyter.project.class_fractions import ClassFractions


@dataclass(frozen=True, eq=False)
class ResultsSnapshot:
    """Results of a project at one moment.

    Attributes
    ----------
    name : str
        Name of the project.
    pair, objects : callables
        Return the image pair and the object table of an image by its name. Annotating changes neither of them.
    settings : TrainingSettings
        Settings of the exported features and patches.
    table : DataFrame
        Predictions, see `Project.predictions`.
    annotated : DataFrame
        Labeled objects, indexed by ``(image, object)``, with the columns ``class``, ``class_id`` and ``test_set``
        (whether the object belongs to the test set).
    classes : ClassScheme
    run : str
        Title of the current run: its name, with the number of labels and the time for the live classifier.
    groups : mapping of image name to mapping
        The grouping columns of each image.
    fractions : ClassFractions
        Estimator of the class fractions.
    warnings : mapping of image name to str
        Warnings about images whose results may be wrong (`project.image_warnings`).
    """

    name: str
    pair: Callable[[str], ImagePair]
    objects: Callable[[str], pd.DataFrame]
    settings: TrainingSettings
    table: pd.DataFrame
    annotated: pd.DataFrame
    classes: ClassScheme
    run: str
    groups: Mapping[str, Mapping[str, str]]
    fractions: ClassFractions
    warnings: Mapping[str, str]

    @property
    def images(self) -> list[str]:
        """The names of the images, in the order of the project."""
        return list(self.groups)

    def rows_of_image(self, image: str) -> pd.DataFrame:
        """Return the predictions of one image, indexed by object."""
        return self.table[self.table.index.get_level_values("image") == image].droplevel("image")

    def counts(self) -> pd.DataFrame:
        """Return the counts per image and class (`Project.counts`)."""
        return count_objects(self.table, self.groups, self.classes, self.fractions, "image")[0]

    def measurements(self, image: str) -> pd.DataFrame:
        """Return the cached features of the objects of an image (`cached_measurements`)."""
        return cached_measurements(self.pair(image), self.objects(image), self.settings.measurements)

    def all_measurements(self) -> pd.DataFrame | None:
        """Return the cached features of all objects; None if no features are cached."""
        tables = {image: table for image in self.images if len((table := self.measurements(image)).columns)}
        return pd.concat(tables, names=["image"]) if tables else None

    def class_map(self, image: str) -> xr.DataArray:
        """Return the class of each pixel (`Project.class_map`)."""
        return class_map(self.pair(image).mask, self.rows_of_image(image), self.classes)

    def probability_map(self, image: str) -> xr.DataArray:
        """Return the probability of each pixel's class (`Project.probability_map`)."""
        return probability_map(self.pair(image).mask, self.rows_of_image(image))


def to_xarray(snapshot: ResultsSnapshot) -> xr.Dataset:
    """Return the results as a Dataset (`core.predictions.object_dataset`)."""
    spacings = {name: snapshot.pair(name).spacing for name in snapshot.images}
    dataset = object_dataset(snapshot.table, snapshot.classes, spacings, snapshot.all_measurements())
    warning = {"warning": summarize(snapshot.warnings)} if snapshot.warnings else {}
    return dataset.assign_attrs(project=snapshot.name, run=snapshot.run, **warning)
