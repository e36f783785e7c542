"""Structure of the package: no import circle, unique file stems, shallow inheritance, short summaries and functions."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from traitlets import HasTraits

import svetlana_jupyter
from svetlana_jupyter.project.project import Project
from tests.test_floors import imports

PACKAGE = Path(svetlana_jupyter.__file__).parent
ROOT = PACKAGE.parent
# A reader and a writer of the same format share a name.
FORMATS = {"ome_zarr", "geojson", "tables"}
TWO_BASES = {"_UnsupportedArray"}  # pickles make it: an array, and a value that is not supported
MAX_PUBLIC_NAMES = 60
MAX_SUMMARY = 79  # characters of the first line of a docstring
MAX_FUNCTION = 60  # lines of a function, without its docstring


def modules() -> dict[str, Path]:
    """Return the files of the package by dotted name."""
    names = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def import_graph(files: dict[str, str]) -> dict[str, set[str]]:
    """Return the modules that each module imports, also in functions and for typing alone.

    Parameters
    ----------
    files : dict of str
        Source by dotted module name.
    """
    graph: dict[str, set[str]] = {name: set() for name in files}
    for name, source in files.items():
        package = name if any(other.startswith(f"{name}.") for other in files) else name.rpartition(".")[0]
        for target, _, _ in imports(ast.parse(source), package):
            module = target if target in files else target.rpartition(".")[0]
            if module in files and module != name and module != "svetlana_jupyter":
                graph[name].add(module)
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules of an import circle, or an empty list if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def package_bases(trees: dict[str, ast.Module]) -> dict[str, list[str]]:
    """Return the bases of each class that are classes of the package, by class name."""
    classes = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    names = {node.name for node in classes}
    bases_by_class = defaultdict(list)
    for node in classes:
        for base in node.bases:
            name = ast.unparse(base).partition("[")[0].rpartition(".")[2]
            if name in names:
                bases_by_class[node.name].append(name)
    return bases_by_class


def test_there_is_no_import_circle():
    assert circle(import_graph({name: path.read_text("utf-8") for name, path in modules().items()})) == []


@pytest.mark.parametrize(
    "source",
    ["from p import a", "def f():\n    from p.a import x", "if TYPE_CHECKING:\n    from p.a import x", "import p.a"],
)
def test_an_import_circle_is_detected_in_any_scope(source):
    files = {"p": "", "p.a": "from p.b import y", "p.b": source}
    assert set(circle(import_graph(files))) == {"p.a", "p.b"}


def test_no_file_stem_is_used_twice_except_for_formats():
    stems = Counter(path.stem for path in PACKAGE.rglob("*.py") if path.stem != "__init__")
    assert {stem for stem, count in stems.items() if count > 1} <= FORMATS


def test_no_class_has_two_bases_from_the_package():
    trees = {name: ast.parse(path.read_text("utf-8")) for name, path in modules().items()}
    assert {
        name: bases for name, bases in package_bases(trees).items() if len(bases) > 1 and name not in TWO_BASES
    } == {}


def test_two_bases_are_detected():
    source = "class A: ...\nclass B: ...\nclass C(A, m.B[int]): ..."
    assert package_bases({"p": ast.parse(source)}) == {"C": ["A", "B"]}


def test_no_public_class_name_is_used_twice():
    names = Counter(
        node.name
        for path in modules().values()
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_project_is_composed_and_small(tmp_path):
    project = Project(tmp_path / "empty.svetlana")
    names = [name for name in dir(project) if not name.startswith("_") and name not in dir(HasTraits)]
    assert Project.__bases__ == (HasTraits,)
    assert len(names) <= MAX_PUBLIC_NAMES, names


def test_the_first_line_of_a_docstring_and_a_function_are_short():
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, documented) and (docstring := ast.get_docstring(node)):
                assert len(summary := docstring.splitlines()[0]) <= MAX_SUMMARY, f"{path.name}: {summary}"
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                own = (node.end_lineno or 0) - node.lineno + 1 - len((ast.get_docstring(node) or "").splitlines())
                assert own <= MAX_FUNCTION, f"{path.name}: {node.name} has {own} lines"
