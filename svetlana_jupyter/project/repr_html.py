"""HTML summary of a project, displayed as the output of a notebook cell."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from svetlana_jupyter.errors import SvetlanaError

if TYPE_CHECKING:
    from svetlana_jupyter.project.annotation_store import Annotations
    from svetlana_jupyter.project.image_collection import ImageCollection
    from svetlana_jupyter.project.project_classes import ProjectClasses
    from svetlana_jupyter.project.run_store import RunStore

MAX_IMAGES_SHOWN = 12


def project_report_html(
    name: str, images: ImageCollection, annotations: Annotations, classes: ProjectClasses, runs: RunStore
) -> str:
    """Return a table of images, annotations and runs as HTML; all names are escaped."""
    annotated = annotations.label_table().query("action == 'label'").groupby(level="image").size()
    class_counts = annotations.class_counts()
    rows = []
    for image, entry in list(images.items())[:MAX_IMAGES_SHOWN]:
        shape, channels = " × ".join(map(str, entry.shape)), ", ".join(entry.channels)
        try:
            count = f"{len(images.objects(image)):,}" if images.is_indexed(image) else "not counted yet"
        except SvetlanaError as error:
            count = str(error)
        rows.append((image, shape, entry.dtype, channels, count, str(annotated.get(image, 0))))
    head = "".join(f"<th>{text}</th>" for text in ("image", "shape", "dtype", "channels", "objects", "annotated"))
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    table = (
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if rows else "<div>no images yet</div>"
    )
    more = len(images) - MAX_IMAGES_SHOWN
    legend = " ".join(
        f'<span style="margin-right:1.2em"><span style="color:{info.color}">&#9632;</span> {escape(info.name)} '
        f"{class_counts[info.name]}</span>"
        for info in classes
    )
    run = f"run {escape(runs.current_name)} of {len(runs)}" if runs else "nothing trained yet"
    return (
        f"<div><b>{escape(name)}</b> &middot; {len(images)} image{'' if len(images) == 1 else 's'} &middot; {run}</div>"
        f"<div>{legend or 'no classes yet'}</div>{table}"
        + (f"<div>and {more} more image{'' if more == 1 else 's'}</div>" if more > 0 else "")
    )
