"""What a project holds at one moment, so that all files of an export agree while somebody annotates on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
import xarray as xr

from svetlana_jupyter.core.classes import ClassScheme
from svetlana_jupyter.core.results import class_map, probability_map
from svetlana_jupyter.core.statistics import count_classes
from svetlana_jupyter.project.exports.measured import cached_measurements

if TYPE_CHECKING:
    from svetlana_jupyter.core.pairing import ImagePair
    from svetlana_jupyter.project.project import Project


@dataclass(frozen=True, eq=False)
class ResultsSnapshot:
    """The results of a project.

    Attributes
    ----------
    project : Project
        For what stays as it is: images, masks and objects.
    table : DataFrame
        `Results.predictions`.
    annotated : DataFrame
        Indexed by ``(image, object)``: ``class`` of each annotated object, and whether it is of the ``test_set``.
    classes : Classes
    run : str
    groups : mapping of str to sequence of str
        The grouping columns of each image.
    """

    project: Project
    table: pd.DataFrame
    annotated: pd.DataFrame
    classes: ClassScheme
    run: str
    groups: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, project: Project) -> ResultsSnapshot:
        """Take down what stands now; any thread may call this, and annotating goes on."""
        images = project.images
        for image in images:
            project.objects(image, wait=True)
        with project._lock:
            annotated = project.labels().query("action == 'label'")[["class"]]
            annotated = annotated[annotated.index.get_level_values("image").isin(list(images))]
            apart = [project.in_test_set(str(image), int(one)) for image, one in annotated.index]
            return cls(
                project,
                project.predictions(list(images)),
                annotated.assign(test_set=apart),
                project.classes,
                project.current_run,
                {name: entry.groups for name, entry in images.items()},
            )

    @property
    def images(self) -> list[str]:
        """The images, in the order of the project."""
        return list(self.groups)

    def pair(self, image: str) -> ImagePair:
        return self.project.pair(image)

    def objects(self, image: str) -> pd.DataFrame:
        """Return the object index of an image."""
        return self.project.objects(image)

    def of_image(self, image: str) -> pd.DataFrame:
        """Return the rows of the table that are of one image, indexed by object."""
        rows = self.table[self.table.index.get_level_values("image") == image]
        return rows.droplevel("image")

    def counts(self) -> pd.DataFrame:
        """Return `Results.counts` by image."""
        return count_classes(self.table.reset_index(), self.classes.names, ["image"])

    def measured(self, image: str) -> pd.DataFrame:
        """Return what is measured of the objects of an image (`cached_measurements`)."""
        return cached_measurements(self.project, image)

    def class_map(self, image: str) -> xr.DataArray:
        """Return `Results.class_map`."""
        return class_map(self.pair(image).mask, self.of_image(image), self.classes)

    def probability_map(self, image: str) -> xr.DataArray:
        """Return `Results.probability_map`."""
        return probability_map(self.pair(image).mask, self.of_image(image))
