"""The layers point one way: workflow -> pipeline.stages -> pipeline -> models. Read from the source, nothing is run."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "models").rglob("*.py")])
LONGEST_FILE, LONGEST_FUNCTION = 400, 50


def imported(path):
    """Yield the full names of all modules that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", sorted((ROOT / "models").rglob("*.py")), ids=lambda path: path.name)
def test_models_never_import_pipeline(path):
    assert not [name for name in imported(path) if name.split(".")[0] == "pipeline"]


@pytest.mark.parametrize("path", sorted((ROOT / "pipeline" / "stages").glob("*.py")), ids=lambda path: path.name)
def test_stages_never_import_each_other(path):
    assert not [name for name in imported(path) if name.startswith("pipeline.stages")]


@pytest.mark.parametrize("path", sorted((ROOT / "pipeline").glob("*.py")), ids=lambda path: path.name)
def test_libraries_never_import_stages(path):
    assert not [name for name in imported(path) if name.startswith("pipeline.stages")]


@pytest.mark.parametrize("module", ["pipeline.config", "pipeline.project", "pipeline.stages.tile", "pipeline.__main__"])
def test_what_plans_and_parses_loads_no_torch(module):
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


def test_public_names_have_docstrings():
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path}: {node.name}"
