"""Taking in what a source says: all in one gesture, and nothing over what somebody said here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from svetlana_jupyter.core.annotations import IMPORT_SOURCE_PREFIX, ObjectId
from svetlana_jupyter.core.classes import check_class_name, check_color
from svetlana_jupyter.core.tables import format_list, plain
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.importing.found import Found, ImportedLabel

if TYPE_CHECKING:
    from svetlana_jupyter.project.dataset import Dataset

ASIDE = ("ambiguous", "bad")
COLUMNS = ["image", "object", "class", "outcome", "why"]


def take(project: Dataset, found: Found, overwrite: bool) -> pd.DataFrame:
    """Annotate objects as a source says, and return what became of each of its rows."""
    names = _names(project, found)
    checked = [_checked(project, row, names) for row in found.rows]
    wanted = _wanted(checked, found.last_wins)
    outcomes: dict[ObjectId, tuple[str, str]] = {}
    chosen: dict[ObjectId, str] = {}
    for id, word in wanted.items():
        stands = project.label_of(*id)
        here = project.classes.by_id(stands.class_id).name if stands.action == "label" else stands.action
        if here == word:
            outcomes[id] = "known", ""
        elif here in ("", "skip"):
            outcomes[id], chosen[id] = ("taken", ""), word
        elif overwrite:
            outcomes[id], chosen[id] = ("taken", f"was {here}"), word
        else:
            outcomes[id] = "differs", f"is {here} here"
    if chosen:
        _write(project, found, chosen)
    rows = [(*row[:3], *_outcome(row, wanted, outcomes)) for row in checked]
    report = pd.DataFrame(rows, columns=COLUMNS)
    report.attrs["summary"] = project.status = _summary(report, found)
    return report


def _names(project: Dataset, found: Found) -> Mapping[str, str]:
    """Return how each class of the source is called here: as a class that there is, in any spelling, or as it is."""
    spelled = {plain(info.name): project.classes.by_id(info.id).name for info in project.classes.infos}
    exact = {info.name: project.classes.by_id(info.id).name for info in project.classes.infos}
    names: dict[str, str] = {}
    for word in dict.fromkeys(row.class_name for row in found.rows if row.class_name):
        known = exact.get(word) or (spelled.get(plain(word)) if plain(word) else None)
        if known is None and word.casefold() in ASIDE:
            known = word.casefold()
        elif known is None:
            check_class_name(word)
            if plain(word):
                spelled[plain(word)] = word  # the next spelling of a new class is the same one
        names[word] = known or word
    return names


def _checked(project: Dataset, row: ImportedLabel, names: Mapping[str, str]) -> ImportedLabel:
    word = names.get(row.class_name, "")
    if row.problem:
        return row._replace(class_name=word)
    if not word:
        return row._replace(problem="it has no class")
    if row.object not in project.objects(row.image).index:
        return row._replace(class_name=word, problem=f"the mask has no object {row.object}")
    return row._replace(class_name=word)


def _wanted(rows: list[ImportedLabel], last_wins: bool) -> dict[ObjectId, str]:
    """Return the class that each object is to have; none of one that is given two."""
    said: dict[ObjectId, list[str]] = {}
    for row in rows:
        if not row.problem:
            said.setdefault(ObjectId(row.image, row.object), []).append(row.class_name)
    return {id: words[-1] for id, words in said.items() if last_wins or len(set(words)) == 1}


def _outcome(
    row: ImportedLabel, wanted: Mapping[ObjectId, str], outcomes: Mapping[ObjectId, tuple[str, str]]
) -> tuple[str, str]:
    id = ObjectId(row.image, row.object)
    if row.problem:
        return ("no class" if row.problem == "it has no class" else "not found"), row.problem
    if id not in wanted:
        return "contradicts", "it is given two classes"
    return outcomes[id] if wanted[id] == row.class_name else ("earlier", f"later it is given {wanted[id]}")


def _write(project: Dataset, found: Found, chosen: Mapping[ObjectId, str]) -> None:
    """Add the classes that are new, then annotate."""
    known = {info.name for info in project.classes.infos}
    for word in dict.fromkeys(chosen.values()):
        if word not in known and word not in ASIDE:
            color = found.colors.get(word, "")
            project.add_class(word, check_color(color) if color else None)
    project.say_each(
        {(id.image, id.object): word for id, word in chosen.items()}, f"{IMPORT_SOURCE_PREFIX}{found.source}"
    )


def _summary(report: pd.DataFrame, found: Found) -> str:
    objects = report.drop_duplicates(["image", "object", "outcome"])
    counts = Counter(objects["outcome"]) | Counter(
        {kind: int((report["outcome"] == kind).sum()) for kind in ("no class", "not found")}
    )
    said = [f"{counts['taken']:,} annotations are taken from {found.source}"]
    if changed := int(objects["why"].str.startswith("was ").sum()):
        said.append(f"{changed:,} of them replace another one")
    for outcome, words in (
        ("known", "were the same here already"),
        ("differs", "are another class here and were left as they are (overwrite=True takes the new ones)"),
        ("contradicts", "are given two classes, so none was taken"),
        ("no class", "have no class"),
    ):
        if counts[outcome]:
            said.append(f"{counts[outcome]:,} {words}")
    if counts["not found"]:
        why = report.loc[report["outcome"] == "not found", "why"]
        said.append(f"{counts['not found']:,} found no object ({format_list(dict.fromkeys(why), 2)})")
    return "; ".join(said) + "." + (f" {found.note}" if found.note else "")


def check_not_empty(found: Found, source: object) -> None:
    """Refuse a source that says nothing of any object."""
    if not found.rows:
        raise InputError(f"{source} says nothing of any object.")
