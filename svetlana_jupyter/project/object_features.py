"""Features of all objects of a project, computed in parts and cached on disk."""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from svetlana_jupyter.core.allowed_cues import restrict_to_allowed_cues
from svetlana_jupyter.core.features.feature_sources import FeatureSource, StoredSource
from svetlana_jupyter.core.features.fitted_sources import (
    FittedSource,
    FittedSources,
    fit_source,
    joined,
    standard_sources,
)
from svetlana_jupyter.core.io.chunks import group_blocks_into_parts, processing_block_shape
from svetlana_jupyter.core.io.images import fingerprint
from svetlana_jupyter.core.objects import centroid_columns
from svetlana_jupyter.errors import DamagedError, InputError, ProjectError, SvetlanaError
from svetlana_jupyter.project.feature_matrix import FeatureMatrix, ImageFeatures
from svetlana_jupyter.project.feature_rows import LAYOUT, MISSING, FeatureRows, open_rows
from svetlana_jupyter.project.file_access import make_folder, read_json, remove_file
from svetlana_jupyter.project.jobs import Progress, Stop, thread_count
from svetlana_jupyter.project.known_files import checked_live
from svetlana_jupyter.project.storage import file_name, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.core.settings import TrainingSettings
    from svetlana_jupyter.learn.dataset import AnnotatedImage
    from svetlana_jupyter.learn.encoder import Encoder
    from svetlana_jupyter.project.image_collection import ImageCollection
    from svetlana_jupyter.project.storage import ProjectFolder

ENCODER_PREFIX = "encoder "  # of the names of sources, and so of their files
ADD_ENCODER = "Call project.features.add with it, or project.features.remove to do without it."
PART_OBJECTS = 500  # objects computed between two chances to stop


@dataclass(frozen=True, eq=False)
class _CachedSources(FittedSources):
    """Sources of a project, whose features are read from its cache."""

    images: frozenset[str]
    read: Callable[[FittedSources, str, pd.DataFrame], NDArray[np.float32]]

    def compute(
        self, pair: ImagePair, objects: pd.DataFrame
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield labels and features, which are added to the cache."""
        if pair.name not in self.images:
            yield from super().compute(pair, objects)
            return
        for start in range(0, len(objects), PART_OBJECTS):
            batch = objects.iloc[start : start + PART_OBJECTS]
            yield batch.index.to_numpy(np.int64), self.read(self, pair.name, batch)


class ObjectFeatures:
    """Features of the objects of a project, from several sources.

    Images whose number of dimensions or channels differs from the first image have no features.

    Parameters
    ----------
    folder : ProjectFolder
    images : ImageCollection
    settings : callable
        Returns the training settings, whose allowed cues all sources obey.
    hidden : callable
        Returns the objects of the test set of an image that are not annotated yet.

    Attributes
    ----------
    on_changed : callable
        Called after a change of the sources.
    on_damaged : callable
        Called with a sentence about features that were damaged on disk; may be called on any thread.
    problems : dict of str to str
        Why images or objects have no features, by image or source.
    """

    def __init__(
        self,
        folder: ProjectFolder,
        images: ImageCollection,
        settings: Callable[[], TrainingSettings],
        hidden: Callable[[str], frozenset[int]],
    ) -> None:
        self._folder, self._images, self._settings, self._hidden = folder, images, settings, hidden
        self._fitted: dict[str, FittedSource] = {}
        self._rows: dict[tuple[str, str], FeatureRows] = {}
        self._lock = threading.RLock()
        self.problems: dict[str, str] = {}
        self._encoders: dict[str, tuple[Encoder, int, str]] = {}
        self._of_training: tuple[tuple[object, ...], FittedSources] | None = None
        self.on_changed: Callable[[], None] = lambda: None
        self.on_damaged: Callable[[str], None] = lambda sentence: None

    def sources(self, settings: TrainingSettings | None = None) -> tuple[FeatureSource, ...]:
        """Return the sources of the features, within the allowed cues.

        Parameters
        ----------
        settings : TrainingSettings, optional
            By default the training settings of the project.
        """
        settings = restrict_to_allowed_cues(settings or self._settings())
        ndim = next((len(entry.shape) for entry in self._images.values()), 2)
        measurements, patches = standard_sources(settings, ndim, thread_count("script"))
        encoders: list[FeatureSource] = []
        for name in self.encoders if "orientation" in settings.may_use else ():
            if name in self._encoders:
                from svetlana_jupyter.learn.encoder import EncoderSource

                encoders.append(EncoderSource(ENCODER_PREFIX + name, *self._encoders[name], settings))
            else:
                stored = StoredSource(ENCODER_PREFIX + name, self._stored_version(ENCODER_PREFIX + name))
                if self._known(stored) is not None:
                    encoders.append(stored)
                elif name not in self.problems:
                    self.problems[name] = f"The cache of encoder {name} is damaged, so it is left out. {ADD_ENCODER}"
                    self.on_damaged(self.problems[name])
        return measurements, *encoders, patches

    def encoder_sources(self, settings: TrainingSettings) -> dict[str, FeatureSource]:
        """Return the encoders that were added in this kernel, by source name."""
        sources = [source for source in self.sources(settings) if not isinstance(source, StoredSource)]
        return {source.name: source for source in sources if source.name.startswith(ENCODER_PREFIX)}

    def for_training(self, settings: TrainingSettings, parts: Sequence[AnnotatedImage]) -> FittedSources:
        """Return the sources of features for a classifier that is trained.

        Features that are known are read from the cache. Sources that have learned nothing yet learn from the objects of
        the annotated images.

        Parameters
        ----------
        settings : TrainingSettings
        parts : sequence of AnnotatedImage
        """
        sources = [source for source in self.sources(settings) if not isinstance(source, StoredSource)]
        fitted = self._known_sources(sources)
        if fitted is not None and {pair.name for pair, _, _ in parts} <= set(self.similar_images()):
            return self.cached(fitted)
        key = parts[0][0].ndim, *(source.version for source in sources), *(pair.name for pair, _, _ in parts)
        with self._lock:
            if self._of_training is not None and self._of_training[0] == key:
                return self._of_training[1]
        from svetlana_jupyter.learn.dataset import fit_sources

        learned = fit_sources(settings, parts, sources)
        with self._lock:
            self._of_training = key, learned
        return learned

    def cached(self, sources: FittedSources) -> FittedSources:
        """Return sources that read from the cache, if it has their features."""
        known = self._known_sources([each.source for each in sources.sources])
        if known is None or [each.digest for each in known.sources] != [each.digest for each in sources.sources]:
            return sources
        return _CachedSources(known.sources, frozenset(self.similar_images()), self._read)

    def _read(self, fitted: FittedSources, name: str, objects: pd.DataFrame) -> NDArray[np.float32]:
        """Return the features (n, D) of objects; compute those that are missing."""
        self._compute(fitted, name, objects)
        image = self._image(name, fitted)
        positions = image.labels.get_indexer(objects.index)
        missing = (positions < 0) | ~image.is_present[positions]
        if missing.any():
            raise DamagedError(f"Object {objects.index[int(missing.argmax())]} of {name!r} has no features.")
        return image.read(positions)

    @property
    def encoders(self) -> list[str]:
        """Names of the encoders that were added, in this kernel or an earlier one."""
        stored: list[Path] = []
        with suppress(OSError):
            stored = sorted(self._folder.features_folder.glob(f"{ENCODER_PREFIX}*.json"))
        names = [unquote(file.stem.removeprefix(ENCODER_PREFIX)) for file in stored]
        return list(dict.fromkeys([*names, *self._encoders]))

    def add(self, name: str, encoder: Encoder | str | os.PathLike[str], size: int = 64) -> None:
        """Use an encoder of your own as a further source of features.

        The program neither ships nor fetches encoders. In a kernel where the encoder was not added, its cached
        features are used, and objects without them are not predicted. If orientation is no allowed cue, encoders are
        left out, since they see it.

        Parameters
        ----------
        name : str
        encoder : torch.nn.Module, callable, or path of an ONNX file
            Function from patches of shape (n, C, [size,] size, size) to features (n, d). A module gets a tensor, any
            other function a float32 array. ONNX files need ``pip install "svetlana-jupyter[onnx]"``. Channels are
            scaled to the image's 1st and 99.8th percentiles or, if brightness or surroundings are no allowed cues,
            standardized per object.
        size : int
            Pixels per side of the patches.

        Raises
        ------
        InputError
            If the encoder is not callable, or the file, the name or the size are not valid.
        SettingsError
            If a file is passed, but onnxruntime is not installed.
        """
        from svetlana_jupyter.learn.encoder import check_encoder
        from svetlana_jupyter.learn.onnx_encoder import OnnxEncoder

        if isinstance(encoder, str | os.PathLike):
            encoder = OnnxEncoder(encoder, thread_count("script"))
        self._encoders[name] = encoder, size, check_encoder(name, encoder, size)
        self.on_changed()

    def remove(self, name: str) -> None:
        """Remove an encoder and its cached features.

        Raises
        ------
        InputError
            If there is no encoder of that name.
        """
        if name not in self.encoders:
            raise InputError(f"There is no encoder {name!r}. Choose one of {', '.join(self.encoders) or '(none)'}.")
        with self._lock:
            self._encoders.pop(name, None)
            self._fitted.pop(ENCODER_PREFIX + name, None)
            if self._folder.writable:
                remove_file(self._source_file(ENCODER_PREFIX + name))
        self.on_changed()

    def refresh(self) -> None:
        """Forget all features and what the sources have learned.

        They are computed anew, for example after many images of another kind were added.
        """
        with self._lock:
            self._fitted.clear()
            self._rows.clear()
            if self._folder.writable:
                for source in self.sources():
                    if not isinstance(source, StoredSource):
                        remove_file(self._source_file(source.name))
        self.on_changed()

    def compute(self, stop: Stop, first: Callable[[], Mapping[str, Collection[int]]] = dict) -> Iterator[Progress]:
        """Compute all missing features, image by image; a stop keeps finished parts.

        Parameters
        ----------
        stop : callable
        first : callable
            Returns the objects to compute next, by image and the most urgent first. It is called before every part,
            and at most as many objects of an image are taken as a part has.

        Yields
        ------
        Progress
            After every part of the objects.
        """
        names, tables, waiting = self.similar_images(), dict[str, pd.DataFrame](), dict[str, NDArray[np.int64]]()
        others = [name for name in self._images.snapshot() if name not in names]
        self.problems = dict.fromkeys(others, f"It has other dimensions or channels than {names[:1]}.")
        for number, name in enumerate(names):
            yield Progress(number, len(names), "finding objects", later=None)
            if stop():
                return
            with self._noting_problem(name):
                self._images.pair(name)
                tables[name] = self._images.objects(name, wait=True)
        if not tables:
            return
        yield Progress(0, 1, "computing features")
        sources = self.sources()
        learned = [self._fit(source, tables, stop) for source in sources]
        fitted = FittedSources(tuple(filter(None, learned)))
        if None in learned:
            return
        for source in sources:
            if isinstance(source, StoredSource):
                self.problems[source.name] = f"{source.name} is missing in this kernel. {ADD_ENCODER}"
        for name in tables:
            with self._noting_problem(name):
                image = self._image(name, fitted)
                for stored in image.parts:
                    stored.find_others()
                waiting[name] = np.flatnonzero(image.is_waiting)
        tables = {name: tables[name] for name in waiting}
        total = sum(map(len, tables.values()))
        done, asked = total - sum(map(len, waiting.values())), set[tuple[str, int]]()
        for name, rows in waiting.items():
            with self._noting_problem(name):
                for part in self._parts(name, tables[name].iloc[rows]):
                    if self._compute_first(fitted, tables, first(), asked):
                        yield Progress(done, total, f"computing features of {name}", "objects")
                    if stop():
                        return
                    self._compute(fitted, name, part)
                    done += len(part)
                    yield Progress(done, total, f"computing features of {name}", "objects")
                    if stop():
                        return

    def matrix(self, images: Sequence[str] | None = None) -> FeatureMatrix:
        """Return the features that are known so far, without computing any.

        Images that cannot be opened are left out.
        """
        fitted, found = self._known_sources(self.sources()), dict[str, ImageFeatures]()
        if fitted is None:
            return FeatureMatrix({}, FittedSources(()))
        with checked_live():
            for name in self.similar_images() if images is None else images:
                with suppress(SvetlanaError, OSError):
                    found[name] = self._image(name, fitted)
        return FeatureMatrix(found, fitted)

    def _known_sources(self, sources: Sequence[FeatureSource]) -> FittedSources | None:
        """Return what sources have learned; None unless all have."""
        fitted = tuple(known for source in sources if (known := self._known(source)) is not None)
        return FittedSources(fitted) if len(fitted) == len(sources) else None

    def similar(self, image: str, label: int, count: int = 100) -> pd.DataFrame:
        """Return the objects whose features are most similar to those of an object.

        Parameters
        ----------
        image : str
        label : int
            The object to compare with.
        count : int
            Largest number of objects.

        Returns
        -------
        DataFrame
            ``distance`` by ``(image, object)``, the nearest first: the Euclidean distance of the features, whose mean
            squared norm is about 1. Objects without features are left out, and those of the test set that are not
            annotated yet.

        Raises
        ------
        ProjectError
            If the features of the object are not known, or if it belongs to the test set and is not annotated yet.
        """
        if label in self._hidden(image):
            raise ProjectError(
                f"Object {label} of {image!r} belongs to the test set, so similar objects are hidden. Annotate it "
                "first."
            )
        matrix = self.matrix()
        is_known, query = matrix.find(pd.MultiIndex.from_tuples([(image, label)]))
        if not is_known[0]:
            raise ProjectError(
                f"Object {label} of {image!r} has no features yet. Call project.live.update() to compute them."
            )
        found = []
        for name, each in matrix.images.items():
            distances = each.squared_distances(query[0])
            distances[each.labels.isin([*self._hidden(name), *([label] if name == image else [])])] = np.inf
            nearest = np.argsort(distances, kind="stable")[:count]
            index = pd.MultiIndex.from_product([[name], each.labels[nearest]], names=["image", "object"])
            found.append(pd.DataFrame({"distance": np.sqrt(distances[nearest])}, index))
        table: pd.DataFrame = pd.concat(found)
        table = table[np.isfinite(table["distance"])].sort_values("distance", kind="stable")
        return table.head(count)

    def similar_images(self) -> list[str]:
        """Return the images with as many dimensions and channels as the first one."""
        kinds = {name: (len(e.shape), len(e.channels)) for name, e in self._images.snapshot().items()}
        return [name for name, kind in kinds.items() if kind == next(iter(kinds.values()))]

    @contextmanager
    def _noting_problem(self, name: str) -> Iterator[None]:
        try:
            yield
        except (SvetlanaError, OSError) as error:
            self.problems[name] = str(error)

    def _image(self, name: str, fitted: FittedSources) -> ImageFeatures:
        """Return the features of an image that are known so far."""
        labels, mask = self._images.objects(name, wait=True).index, self._images.entry(name).mask_number
        pixels = self._images.image_fingerprint(name)
        parts = tuple(self._open(each, name, labels) for each in fitted.sources)
        return ImageFeatures(name, mask, pixels, labels, parts, fitted.weights)

    def _open(self, fitted: FittedSource, name: str, labels: pd.Index) -> FeatureRows:
        """Return the features of a source for an image, from memory or disk."""
        source, entry = fitted.source.name, self._images.entry(name)
        files = f"{self._images.image_fingerprint(name)} {fingerprint(self._images.mask_file(name))} {entry.spacing}"
        numbers = labels.to_numpy(np.int64).tobytes()
        key = hashlib.sha256(f"{LAYOUT} {files} {fitted.digest} ".encode() + numbers).hexdigest()[:16]
        with self._lock:
            known = self._rows.get((name, source))
            if known is not None and known.key == key:
                return known
            folder, shape = self._folder.features_folder / file_name(name), (len(labels), len(fitted.center))
            self._rows[name, source] = opened = open_rows(folder, source, key, shape, self._folder.writable)
        if opened.n_damaged:
            self.on_damaged(
                f"Features ({source}) of {opened.n_damaged:,} objects of {name!r} were damaged on disk. They are "
                "computed again with the next update."
            )
        return opened

    def _parts(self, name: str, objects: pd.DataFrame) -> Iterator[pd.DataFrame]:
        """Yield neighboring objects of an image together, in chunk order."""
        pair = self._images.pair(name)
        centers, block = objects[centroid_columns(pair.ndim)], processing_block_shape(pair.image, pair.mask)
        for rows in group_blocks_into_parts(centers.to_numpy(float), block, PART_OBJECTS):
            for start in range(0, len(rows), 2 * PART_OBJECTS):
                yield objects.iloc[np.sort(rows[start : start + 2 * PART_OBJECTS])]

    def _compute_first(
        self,
        fitted: FittedSources,
        tables: Mapping[str, pd.DataFrame],
        first: Mapping[str, Collection[int]],
        asked: set[tuple[str, int]],
    ) -> bool:
        """Compute urgent objects not ``asked`` for before; return whether there were any."""
        before = len(asked)
        for name, labels in first.items():
            new = [label for label in labels if (name, label) not in asked][:PART_OBJECTS]
            if name in tables and new:
                asked.update((name, label) for label in new)
                with self._noting_problem(name):
                    self._compute(fitted, name, tables[name][tables[name].index.isin(new)])
        return len(asked) > before

    def _compute(self, fitted: FittedSources, name: str, objects: pd.DataFrame) -> None:
        """Compute the features of objects that are missing."""
        labels, pair = self._images.objects(name, wait=True).index, self._images.pair(name)
        for each in fitted.sources:
            stored = self._open(each, name, labels)
            missing = objects[stored.state[labels.get_indexer(objects.index)] == MISSING]
            for found, blocks in each.source.compute(pair, missing, each.fitted) if len(missing) else ():
                stored.put(labels.get_indexer(pd.Index(found)), joined(blocks, each.source), each)

    def _fit(self, source: FeatureSource, tables: Mapping[str, pd.DataFrame], stop: Stop) -> FittedSource | None:
        """Return what a source has learned before, or let it learn from a sample now.

        The result is None after a stop. The features of the sample are stored.
        """
        if (known := self._known(source)) is not None:
            return known
        found = fit_source(source, tables, self._images.pair, stop)
        if found is None:
            return None
        result, sample = found
        with self._lock:
            self._fitted[source.name] = result
        if self._folder.writable:
            with suppress(OSError, ProjectError):  # a full disk or a link must not interrupt the user
                make_folder(self._folder.features_folder)
                write_json(self._source_file(source.name), result.to_json())
        for name, parts in sample.items():
            objects, values = (np.concatenate(each) for each in zip(*parts, strict=True))
            labels = tables[name].index
            self._open(result, name, labels).put(labels.get_indexer(pd.Index(objects)), values, result)
        return result

    def _known(self, source: FeatureSource) -> FittedSource | None:
        """Return what a source has learned, from memory or disk; None if nothing."""
        with self._lock:
            known = self._fitted.get(source.name)
            if known is not None and known.source.version == source.version:
                return known
            with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
                document = read_json(self._source_file(source.name))
                self._fitted[source.name] = known = FittedSource.from_json(document, source)
                return known
        return None

    def _stored_version(self, source: str) -> str:
        """Return the version of a source whose features are cached; "" without any."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            return str(read_json(self._source_file(source))["version"])
        return ""

    def _source_file(self, source: str) -> Path:
        return self._folder.features_folder / f"{file_name(source)}.json"
