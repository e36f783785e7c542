"""What a project looks like at the end of a notebook cell."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

SHOWN = 12


def project_report_html(project: Project) -> str:
    """Return a table of the images, the annotations so far and the runs as HTML; all names are escaped."""
    labels = project.labels()
    annotated = labels.query("action == 'label'").groupby(level="image").size()
    rows = []
    for name, entry in list(project.images.items())[:SHOWN]:
        shape = " × ".join(map(str, entry.shape))
        channels = ", ".join(entry.channels)
        count = f"{len(project.objects(name)):,}" if project.images.is_indexed(name) else "not counted yet"
        rows.append((name, shape, entry.dtype, channels, count, str(annotated.get(name, 0))))
    head = "".join(f"<th>{text}</th>" for text in ("image", "shape", "dtype", "channels", "objects", "annotated"))
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    more = len(project.images) - SHOWN
    counts = project.annotations.class_counts()
    classes = " ".join(
        f'<span style="margin-right:1.2em"><span style="color:{info.color}">&#9632;</span> {escape(info.name)} '
        f"{counts[info.name]}</span>"
        for info in project.classes
    )
    run = f"run {escape(project.current_run)} of {len(project.runs)}" if project.runs else "nothing trained yet"
    return (
        f"<div><b>{escape(project.path.name)}</b> &middot; {len(project.images)} images &middot; {run}</div>"
        f"<div>{classes or 'no classes yet'}</div>"
        + (
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            if rows
            else "<div>no images yet</div>"
        )
        + (f"<div>and {more} more images</div>" if more > 0 else "")
    )
