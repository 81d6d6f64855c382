"""Rooms, from the ground up: a file imports its own room and those above it in the table. Read from the source."""

import ast
import re
import subprocess
import sys
from collections import Counter

import pytest

from tests.support.paths import ROOT

# A room may import itself and every room before it. `pipeline.training.data` is part of the room `pipeline.training`.
ROOMS = [
    "models.base",
    "models.layers",
    "models",
    "pipeline",  # the version, in its __init__.py
    "pipeline.base",
    "pipeline.runtime",
    "pipeline.settings",
    "pipeline.project",
    "pipeline.slides",
    "pipeline.networks",
    "pipeline.tiling",
    "pipeline.masks",
    "pipeline.metrics",
    "pipeline.prediction",
    "pipeline.training",
    "pipeline.report",
    "pipeline.stages",
    "pipeline.commands",
    "pipeline.__main__",
]
# What the table alone would allow, and what must not be.
NEVER = {
    "pipeline.settings": {"pipeline.base.paths"},
    "pipeline.masks": {"pipeline.tiling"},
    "pipeline.report": {"pipeline.training", "torch"},
    "pipeline.stages": {"pipeline.stages"},
    "pipeline.commands": {"pipeline.commands"},
}
SOURCES = sorted([*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "models").rglob("*.py")])
RULES = sorted([ROOT / "Snakefile", *(ROOT / "workflow").rglob("*.smk")])
LONGEST_FILE, LONGEST_FUNCTION, MOST_ENTRIES = 400, 45, 16
DOTTED = re.compile(r"(?:models|pipeline)(?:\.\w+)+")


def room_of(module):
    """Return the room of a dotted name: the longest entry of the table that it begins with."""
    return max((room for room in ROOMS if f"{module}.".startswith(f"{room}.")), key=len)


def name_of(path):
    """Return the dotted name of a file; that of a folder for its __init__.py."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def exists(module):
    """Return whether a dotted name is one of a file or folder of the project."""
    path = ROOT.joinpath(*module.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def imported(text):
    """Yield every module that a Python text imports, also inside functions, and every one that a string names."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if exists(name) else node.module for name in names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
            module = node.value.partition(":")[0]
            if DOTTED.fullmatch(module) and exists(module):
                yield module


def imported_by_rules(text):
    """Yield the modules that a rule file imports: its lines of Python stand at the top, or behind ``if``."""
    for line in re.findall(r"^\s*((?:from|import) .*)", text, re.MULTILINE):
        yield from imported(line)


def wrong_way(importer, modules):
    """Return those of the ``modules`` that a file of this name must not import."""
    own = room_of(importer)
    ours = [module for module in modules if module.split(".")[0] in {"models", "pipeline"} and module != importer]
    above = [module for module in ours if ROOMS.index(room_of(module)) > ROOMS.index(own)]
    never = [f"{name}." for name in NEVER.get(own, ())]
    return above + [module for module in modules if f"{module}.".startswith(tuple(never)) and module != own]


def wrong_way_of_rules(modules):
    """Return those of the ``modules`` that a rule file must not import: all but base, runtime, settings and project."""
    allowed = ROOMS[ROOMS.index("pipeline") : ROOMS.index("pipeline.slides")]
    return [name for name in modules if name.split(".")[0] in {"models", "pipeline"} and room_of(name) not in allowed]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_one_way(path):
    assert not wrong_way(name_of(path), list(imported(path.read_text())))


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_rules_import_the_project_only(path):
    assert not wrong_way_of_rules(list(imported_by_rules(path.read_text())))


@pytest.mark.parametrize(
    ("importer", "text"),
    [
        ("pipeline.slides.slide", "from pipeline.tiling.grid import Grid"),
        ("pipeline.slides.slide", "from pipeline.tiling import grid"),
        ("pipeline.slides.slide", "def late():\n    import pipeline.stages.tile"),
        ("pipeline.slides.formats", "TABLE = {'.tif': 'pipeline.training.loop:train'}"),
        ("models.base.interface", "from models.unet import UNet"),
        ("models.unet", "import pipeline"),
        ("pipeline.settings.schema", "from pipeline.base.paths import MASK"),
        ("pipeline.masks.instances", "from pipeline.tiling.plan import SlidePlan"),
        ("pipeline.report.results", "from pipeline.training.history import read"),
        ("pipeline.stages.tile", "from pipeline.stages.predict import run"),
        ("pipeline.commands.view", "from pipeline.__main__ import main"),
    ],
)
def test_an_import_the_wrong_way_is_found(importer, text):
    assert wrong_way(importer, list(imported(text)))


@pytest.mark.parametrize(
    "line",
    ["from pipeline.slides.slide import open_slide", "if True:\n    import models", "import pipeline.stages.tile"],
)
def test_an_import_the_wrong_way_in_a_rule_is_found(line):
    assert wrong_way_of_rules(list(imported_by_rules(f'{line}\n\nrule a:\n    output:\n        "a",\n')))


def test_every_file_has_a_room():
    assert {name for name in map(name_of, SOURCES) if room_of(name) == "pipeline"} == {"pipeline"}


@pytest.mark.parametrize(
    "module",
    [
        *("pipeline.settings.schema", "pipeline.project.stage_settings", "pipeline.__main__"),
        *(f"pipeline.stages.{stage}" for stage in ("tile", "stitch", "objects", "evaluate", "report")),
    ],
)
def test_what_computes_no_network_loads_no_torch(module):
    """It would take seconds, and half a gigabyte."""
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_files_and_functions_are_short():
    for path in SOURCES:
        text = path.read_text()
        assert len(text.splitlines()) <= LONGEST_FILE, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                assert length <= LONGEST_FUNCTION, f"{path}: {node.name}"


def test_folders_have_few_entries():
    entries = Counter(path.parent for path in SOURCES if path.name != "__init__.py")
    entries.update(path.parent.parent for path in SOURCES if path.name == "__init__.py")
    assert max(entries.values()) < MOST_ENTRIES, entries.most_common(3)  # and the __init__.py


def test_rooms_say_what_they_are():
    for path in SOURCES:
        if path.name == "__init__.py":
            text = ast.get_docstring(ast.parse(path.read_text()))
            assert text and len(text) > 80, path


def test_tests_share_what_lies_in_support():
    for path in (ROOT / "tests").rglob("*.py"):
        modules = [name for name in imported(path.read_text()) if name.startswith("tests.")]
        assert not re.findall(r"\.(?:test_\w+|conftest)\b", " ".join(modules)), path


def test_public_names_have_docstrings():
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path}: {node.name}"
