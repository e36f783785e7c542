"""Image and mask files that another program changed after they were added to a project."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from svetlana_jupyter.core.io import file_versions, readers
from svetlana_jupyter.errors import ProjectError, ResultWarning
from svetlana_jupyter.project import image_collection, known_files, prediction_job
from svetlana_jupyter.project.known_files import checked_once
from svetlana_jupyter.project.open_folders import OpenFolder
from svetlana_jupyter.project.project import Project
from tests.project.conftest import make_project, reopen, squares
from tests.project.test_mask_replacement import current_labels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IMAGE = "P1_A1"
CHANGED = r"mask of '\w+' has changed on disk.*Call project\.replace_mask\('\w+'\)"


def permuted(mask: np.ndarray) -> np.ndarray:
    """Return a mask of the same size in bytes in which each object has the next number; the last object has 1."""
    labels = np.arange(mask.max() + 1)
    labels[1:] = np.roll(labels[1:], -1)
    return labels[mask].astype(mask.dtype)


def rewrite(file: Path, pixels: np.ndarray) -> None:
    """Write pixels to a file in place, as another program does."""
    if file.suffix == ".zarr":
        zarr.open_array(file, mode="r+")[:] = pixels
    elif file.suffix == ".h5":
        with h5py.File(file, "r+") as opened:
            opened["mask"][:] = pixels
    else:
        tifffile.imwrite(file, pixels)


@pytest.fixture
def other_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let projects share nothing with other projects of the same folder, as in another kernel."""
    monkeypatch.setattr("svetlana_jupyter.project.project.open_folder", lambda path: OpenFolder())


READERS: dict[str, Callable[[Project], object]] = {
    "predictions": lambda project: project.predictions(),
    "counts": lambda project: project.counts(),
    "export": lambda project: project.export(project.path.with_name("results")),
    "predict": lambda project: project.predict(),
    "evaluate": lambda project: project.evaluate(),
    "class_map": lambda project: project.class_map(IMAGE),
    "probability_map": lambda project: project.probability_map(IMAGE),
    "probabilities": lambda project: project.probabilities(IMAGE),
    "explain": lambda project: project.explain(IMAGE, 1),
    "measure": lambda project: project.measure(),
    "train": lambda project: project.train(),
    "annotate": lambda project: project.annotate(IMAGE, 7, "dim"),
    "queue": lambda project: project.queue().next(),
    "objects": lambda project: project.objects(IMAGE),
    "pair": lambda project: project.pair(IMAGE),
    "to_xarray": lambda project: project.to_xarray(),
    "import_annotations": lambda project: project.import_annotations(project.labels().reset_index()),
}


@pytest.fixture(params=["small", "large"])
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat the files as small or as large ones."""
    if request.param == "large":
        for module in (readers, image_collection):
            monkeypatch.setattr(module, "SMALL_BYTES", 0)


def predict(project: Project) -> Project:
    """Annotate one image and predict all."""
    project.annotate(IMAGE, [1, 3, 5], "dim")
    project.annotate(IMAGE, [2, 4, 6], "bright")
    project.train(architecture="forest")
    project.predict()
    return project


@pytest.fixture
def predicted_in_sizes(sizes: None, wells: Path) -> Project:
    """Project of files that are treated as small or as large ones from the beginning."""
    return predict(make_project(wells))


@pytest.fixture(scope="module")
def predicted_folder(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a project in which one image is annotated and all are predicted."""
    folder = tmp_path_factory.mktemp("predicted")
    shutil.copytree(template, folder, dirs_exist_ok=True)
    project = predict(Project(folder / "cells.svetlana", annotator="ann"))
    project.annotations.file.close()
    return project.path


@pytest.fixture
def predicted(predicted_folder: Path, wells: Path) -> Project:
    """Copy of the project for a single test."""
    shutil.copytree(predicted_folder, wells / "cells.svetlana")
    return Project(wells / "cells.svetlana", annotator="ann")


def test_every_reader_refuses_a_mask_that_was_rewritten_in_place(predicted: Project, wells: Path) -> None:
    predicted.predictions()
    file = wells / "masks" / f"{IMAGE}.tif"
    before = file.read_bytes()
    rewrite(file, permuted(squares(seed=1)[1]))
    assert len(file.read_bytes()) == len(before), "only the numbers differ"
    for project in (predicted, reopen(predicted)):
        for name, read in READERS.items():
            with pytest.raises(Exception, match=CHANGED):
                read(project)
                pytest.fail(f"{name} reads the changed mask")
        assert "has changed on disk: it differs in 12 of 12 objects" in project.readiness()
        assert "has changed on disk" in project._repr_html_()
        assert len(project.predictions(["P1_A2"])) == 12, "other images are not affected"
    file.write_bytes(before)
    assert len(project.predictions()) == 36


def test_the_annotations_follow_the_objects_of_a_rewritten_mask(predicted: Project, wells: Path) -> None:
    rewrite(wells / "masks" / f"{IMAGE}.tif", permuted(squares(seed=1)[1]))
    assert predicted.check_mask(IMAGE)["status"].eq("relabeled").all()
    report = predicted.replace_mask(IMAGE)
    assert report.attrs["matched_by"] == "boxes"
    expected = {2: "dim", 4: "dim", 6: "dim", 3: "bright", 5: "bright", 7: "bright"}
    assert current_labels(predicted) == current_labels(reopen(predicted)) == expected
    assert predicted.predictions([IMAGE])["predicted"].isna().all(), "predictions belong to the objects before"


def test_a_test_set_does_not_lose_its_score_to_a_rewritten_mask(wells: Path) -> None:
    project = Project(wells / "scored.svetlana", classes=["dim", "bright"], annotator="ann")
    image, mask = squares(48, seed=4)
    tifffile.imwrite(wells / "many.tif", image)
    tifffile.imwrite(wells / "many_mask.tif", mask)
    project.add("many", wells / "many.tif", wells / "many_mask.tif")
    project.annotate("many", range(1, 13, 2), "dim")
    project.annotate("many", range(2, 13, 2), "bright")
    project.test_set.draw(24)
    for name, label in project.test_set.objects:
        project.annotate(name, label, "bright" if label % 2 == 0 else "dim")
    project.train(preset="default", architecture="forest", trees=20, predict=True)
    assert project.evaluate().network.accuracy.value == 1
    rewrite(wells / "many_mask.tif", permuted(mask))
    for again in (project, reopen(project)):
        with pytest.raises(ProjectError, match=CHANGED):
            again.evaluate()
        with pytest.raises(Exception, match=CHANGED):
            again.predict()
    again.replace_mask("many")
    again.predict()
    assert again.evaluate().network.accuracy.value == 1
    assert len(again.test_set) == 24


def test_a_copied_or_touched_mask_is_accepted(
    predicted_in_sizes: Project, wells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_versions, "SETTLE_SECONDS", 0)
    expected = predicted_in_sizes.predictions()
    file = wells / "masks" / f"{IMAGE}.tif"
    file.with_suffix(".copy").write_bytes(file.read_bytes())
    file.unlink()
    file.with_suffix(".copy").rename(file)
    os.utime(file, (1e9, 1e9))
    for project in (predicted_in_sizes, reopen(predicted_in_sizes)):
        assert project.predictions().equals(expected)
    monkeypatch.setattr(image_collection, "index_objects", lambda *_: pytest.fail("the stat was updated"))
    monkeypatch.setattr(known_files, "fingerprint", lambda *_: pytest.fail("the stat was updated"))
    assert reopen(project).predictions().equals(expected)


def test_a_copied_project_opens_with_its_predictions(
    predicted_in_sizes: Project, wells: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    expected, folder = predicted_in_sizes.predictions(), tmp_path_factory.mktemp("copies") / "copy"
    shutil.copytree(wells, folder, copy_function=shutil.copy)  # without the times of the files
    again = Project(folder / "cells.svetlana", annotator="bo")
    assert again.predictions().equals(expected)
    assert again.readiness() == ""


@pytest.mark.parametrize("kind", ["array", "zarr", "h5", "large"])
def test_masks_of_every_kind_are_compared(wells: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    project, (image, mask) = Project(wells / "kinds.svetlana", classes=["dim"], annotator="ann"), squares(seed=7)
    file = wells / f"mask.{kind}"
    if kind == "array":
        project.add("one", image, mask)
        file = project.images.mask_file("one")
        assert file.suffix == ".zarr"
    elif kind == "zarr":
        zarr.create_array(file, data=mask, chunks=(24, 24))
        project.add("one", wells / "wells" / "P1_A1.tif", file)
    elif kind == "h5":
        with h5py.File(file, "w") as opened:
            opened["image"], opened["mask"] = image, mask
        project.add("one", file / "image", file / "mask")
    else:
        monkeypatch.setattr(readers, "SMALL_BYTES", 0)
        file = wells / "mask.tif"
        tifffile.imwrite(file, mask)
        project.add("one", wells / "wells" / "P1_A1.tif", file)
    project.annotate("one", 3, "dim")
    rewrite(file, permuted(mask))
    for again in (project, reopen(project)):
        with pytest.raises(ProjectError, match=CHANGED):
            again.predictions()
    again.replace_mask("one")
    assert current_labels(again) == {4: "dim"}
    assert current_labels(reopen(again)) == {4: "dim"}
    rewrite(file, mask)
    with pytest.raises(ProjectError, match=CHANGED):
        again.predictions()


def test_predictions_of_a_changed_image_are_marked_everywhere_until_it_is_predicted_again(
    predicted: Project, wells: Path
) -> None:
    file, expected = wells / "wells" / f"{IMAGE}.tif", "image 'P1_A1' has changed after they were computed"
    before = file.read_bytes()
    rewrite(file, 255 - squares(seed=1)[0])
    for project in (predicted, reopen(predicted)):
        version = project.images_version
        with pytest.warns(ResultWarning, match=expected):
            table = project.predictions()
        assert expected in table.attrs["warning"]
        assert expected in project.counts().attrs["warning"]
        counts = project.counts("image").set_index("image")["note"]
        assert counts[IMAGE].str.contains(expected).all()
        assert not counts.drop(IMAGE).str.contains("outdated").any()
        assert "warning" not in project.predictions(["P1_A2"]).attrs
        assert project.images_version > version, "panels show the warning"
        assert expected in project.images.warnings.of_image(IMAGE)
    project.export(wells / "results")
    assert expected in (wells / "results" / "export.json").read_text("utf-8")
    file.write_bytes(before)
    assert "warning" not in project.predictions().attrs
    rewrite(file, 255 - squares(seed=1)[0])
    project.predict()
    assert f"{IMAGE} has changed and was predicted again" in project.status
    assert "warning" not in project.predictions().attrs
    assert project.images.warnings.of_images(project.images) == {}


def test_live_predictions_of_a_changed_image_are_marked_until_they_are_updated(project: Project, wells: Path) -> None:
    project.annotate(IMAGE, [1, 3, 5], "dim")
    project.annotate(IMAGE, [2, 4, 6], "bright")
    project.live.update()
    assert "warning" not in project.predictions().attrs
    rewrite(wells / "wells" / f"{IMAGE}.tif", 255 - squares(seed=1)[0])
    with pytest.warns(ResultWarning, match="image 'P1_A1' has changed after they were computed"):
        project.predictions()
    project.live.update()
    assert "warning" not in project.predictions().attrs


def test_measurements_of_a_changed_image_are_repeated(predicted: Project, wells: Path) -> None:
    before = predicted.measure([IMAGE])["gray_mean"]
    image = squares(seed=1)[0]
    rewrite(wells / "wells" / f"{IMAGE}.tif", 255 - image)
    with pytest.warns(ResultWarning):
        after = predicted.measure([IMAGE])["gray_mean"]
    np.testing.assert_allclose(after, 255 - before, rtol=1e-5)


def test_the_same_pixels_in_a_large_image_are_recognized_in_a_copy(
    predicted: Project, wells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "SMALL_BYTES", 0)
    predicted.predict(resume=False)
    file = wells / "wells" / f"{IMAGE}.tif"
    tifffile.imwrite(file, tifffile.imread(file), compression="zlib")
    for project in (predicted, reopen(predicted)):
        assert "warning" not in project.predictions().attrs
        monkeypatch.setattr(prediction_job, "_predict_missing", lambda *_: pytest.fail("it is predicted already"))
        project.predict()
    pixels = tifffile.imread(file)
    pixels[0, 0] += 1
    tifffile.imwrite(file, pixels, compression="zlib")
    with pytest.warns(ResultWarning, match="changed after they were computed"):
        project.predictions()


def test_an_image_that_changes_while_it_is_predicted_has_no_mixed_predictions(
    predicted: Project, wells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, file = prediction_job._predict_missing, wells / "wells" / f"{IMAGE}.tif"

    def changing(*arguments):
        yield from original(*arguments)
        rewrite(file, 255 - squares(seed=1)[0])

    monkeypatch.setattr(prediction_job, "_predict_missing", changing)
    with pytest.raises(Exception, match="'P1_A1' changed while it was predicted"):
        predicted.predict([IMAGE], resume=False)
    assert not list(predicted.path.rglob("*.parts"))


def test_a_mask_that_another_notebook_replaced_is_read_again(
    predicted: Project, wells: Path, other_kernel: None
) -> None:
    other = Project(predicted.path, annotator="bo")
    other.predictions()
    rewrite(wells / "masks" / f"{IMAGE}.tif", permuted(squares(seed=1)[1]))
    predicted.replace_mask(IMAGE)
    version = other.images_version
    assert other.predictions([IMAGE])["annotation"].dropna().to_dict() == {
        (IMAGE, label): name for label, name in current_labels(predicted).items()
    }
    assert other.images[IMAGE].mask_number == 1
    assert other.images_version == version + 1
    assert len(Project(predicted.path, annotator="cy").predictions()) == 36


def test_a_notebook_that_never_read_the_mask_does_not_mix_up_its_numbers(
    predicted: Project, wells: Path, other_kernel: None
) -> None:
    other = Project(predicted.path, annotator="bo")
    rewrite(wells / "masks" / f"{IMAGE}.tif", permuted(squares(seed=1)[1]))
    predicted.replace_mask(IMAGE)
    with pytest.raises(ProjectError, match="was replaced in the meantime, so nothing was saved"):
        other.annotate(IMAGE, 8, "dim")
    other.annotate(IMAGE, 8, "dim")
    assert current_labels(reopen(predicted))[8] == "dim"


def test_a_mask_that_changed_before_its_objects_were_read_is_refused(project: Project, wells: Path) -> None:
    rewrite(wells / "masks" / f"{IMAGE}.tif", permuted(squares(seed=1)[1]))
    with pytest.raises(ProjectError, match="it is not the mask that was added"):
        project.objects(IMAGE)
    project.replace_mask(IMAGE)
    assert len(project.objects(IMAGE)) == 12


def test_a_file_is_looked_at_once_per_call(predicted: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    predicted.predictions()
    looked_at: list[str] = []
    original = known_files.source_version

    def counting(files):
        looked_at.extend(files)
        return original(files)

    monkeypatch.setattr(known_files, "source_version", counting)
    predicted.predictions()
    assert len(looked_at) == len(set(looked_at)) == 6
    with checked_once(max_age=60):
        predicted.predictions()
    assert len(looked_at) == 6
    predicted.predictions()
    assert len(looked_at) == 12


def test_timers_that_start_while_files_are_not_looked_at_again_look_at_them(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.pair(IMAGE)
    looked_at: list[str] = []
    original = known_files.source_version
    monkeypatch.setattr(known_files, "source_version", lambda files: looked_at.extend(files) or original(files))

    async def start() -> None:
        with checked_once(max_age=60):
            project.pair(IMAGE)
            assert looked_at == []
            asyncio.get_running_loop().call_soon(project.pair, IMAGE)
        await asyncio.sleep(0)

    asyncio.run(start())
    assert len(looked_at) == 2


def test_the_hashes_of_files_may_be_deleted_or_damaged(predicted: Project) -> None:
    expected = predicted.predictions()
    file = predicted.path / "objects" / f"{IMAGE}.json"
    for text in (b"", b"[1]", b'{"mask": 3}', b'{"mask": {"version": 1}}', b"\xff", b"[" * 100_000):
        file.write_bytes(text)
        assert reopen(predicted).predictions().equals(expected)
    file.unlink()
    assert reopen(predicted).predictions().equals(expected)
