"""A project that predicts: its runs over the objects of its images, here or on a cluster."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from traitlets import Any as AnyTrait

from svetlana_jupyter.project.cluster import resolve_client
from svetlana_jupyter.project.evaluation_report import outlying_images
from svetlana_jupyter.project.jobs import JobRunner, Work, thread_count
from svetlana_jupyter.project.prediction import (
    AllPredicted,
    ImagePredicted,
    PredictionTask,
    describe_failures,
    predict_images,
)
from svetlana_jupyter.project.results import Results
from svetlana_jupyter.project.runs import Run

if TYPE_CHECKING:
    from distributed import Client
    from torch.nn import Module


class Predicting(Results):
    """Results that can be made.

    Attributes
    ----------
    job : JobState or None
        The running training or prediction.
    """

    job = AnyTrait(allow_none=True)

    def __init__(self, path: str | Path, classes: Iterable[str] | None = None, annotator: str | None = None) -> None:
        super().__init__(path, classes, annotator)
        self._jobs = JobRunner(self)

    def handle(self, event: object) -> None:
        """Take in one event of a job; only ever called by the owner."""
        if isinstance(event, ImagePredicted):
            self._take_predicted(event)
        elif isinstance(event, AllPredicted):
            self._tell(event.images)

    def predict(
        self,
        images: Iterable[str] | None = None,
        run: str | None = None,
        *,
        client: Client | Literal["local"] | None = None,
        resume: bool = True,
        average: bool = False,
        network: Module | None = None,
    ) -> None:
        """Classify every object of the images (all by default) and wait.

        What is done is kept part after part: after a stop, Ctrl-C or a power cut the same call does the rest alone. An
        image that is predicted already is left out, unless it, its mask or its objects have changed since.

        Parameters
        ----------
        images : iterable of str, optional
        run : str, optional
            The current one by default.
        client : dask.distributed.Client or "local", optional
            Of the cluster that does the work; by default the client that is active, else this machine. Its workers must
            see the images under the same paths.
        resume : bool
            Whether to leave out what is predicted already; otherwise all is done anew.
        average : bool
            Average over the mirrored and turned views that the run was trained with; each costs a prediction.
        network : torch.nn.Module, optional
            Your own, where the run was trained in an earlier session with one that was given as an object.

        Raises
        ------
        ClassifierError
            Before anything is predicted, if the run does not fit an image.
        InputError
            At the end, if some images could not be predicted; the others are.
        """
        if network is not None:
            self._networks[self.run(run).name] = network
        self._jobs.run("prediction", self._prediction(images, run, thread_count("script"), client, resume, average))

    def start_prediction(self, images: Iterable[str] | None = None, run: str | None = None) -> None:
        """Classify on a thread of its own, so that the notebook stays free."""
        self._jobs.start("prediction", self._prediction(images, run, thread_count("panel")))

    def leave_out(self, images: Collection[str]) -> None:
        """Go on as if some images were not part of the project, until it is opened again; nothing is written."""
        with self._lock:
            self._catalog.leave_out(images)
            self.images_version += 1

    def _prediction(
        self,
        images: Iterable[str] | None,
        run: str | None,
        threads: int,
        client: Client | Literal["local"] | None = None,
        resume: bool = True,
        average: bool = False,
    ) -> Work:
        chosen, names = self.run(run), self._chosen(images)
        self._store.check_writable()
        task = self._predicting(names, chosen, threads, self._networks.get(chosen.name))
        task = replace(task, client=resolve_client(client), resume=resume, average=average)
        return lambda stop: predict_images(task, stop)

    def _predicting(self, names: list[str], run: Run, threads: int, network: Module | None) -> PredictionTask:
        masks = {name: entry.mask_number for name, entry in self.images.items()}
        return PredictionTask(
            names, run, threads, self.pair, self.objects, self._catalog.image_fingerprint, masks, network
        )

    def _take_predicted(self, event: ImagePredicted) -> None:
        self._predicted.pop((event.run, event.image), None)
        self.predictions_version += 1
        self._tell((event,))

    def _tell(self, events: Sequence[ImagePredicted]) -> None:
        """Say what was predicted, and all that a person should know of it."""
        where = events[0].image if len(events) == 1 else f"{len(events):,} images"
        said = [f"{sum(event.count for event in events):,} objects of {where} are predicted"]
        said += [
            f"{event.image} has changed since it was predicted, so all of it was predicted anew"
            for event in events
            if event.changed
        ]
        compared = self.compare_images([event.image for event in events], events[0].run)
        if compared["warn"].any():
            said.append(outlying_images(compared))
        failed = [describe_failures(event.image, event.failed) for event in events if event.failed]
        if failed:
            self.trouble = ". ".join(failed)
        self.status = ". ".join([*said, *failed])
