"""What is written twice says the same, and what the documentation names exists."""

import ast
import re
import runpy
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import packages_distributions

import pytest
import yaml

from pipeline.__main__ import COMMANDS, stage_parser
from pipeline.settings.schema import parse_settings
from tests.support.paths import ROOT

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("config/*.md"), *ROOT.glob("docs/**/*.md")]
SOURCES = [path for folder in ("pipeline", "models", "workflow") for path in (ROOT / folder).rglob("*")]
SOURCES = [path for path in SOURCES if path.suffix in {".py", ".smk", ".rst", ".js", ".j2"}]
CONDA_NAMES = {"torch": "pytorch", "openslide-bin": "openslide"}


def test_the_conda_environment_has_the_ranges_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {"python": project["requires-python"], "pip": ""}
    for requirement in project["dependencies"]:
        name, version = re.fullmatch(r"([A-Za-z0-9_-]+)(.*)", requirement).groups()
        wanted[CONDA_NAMES.get(name, name)] = version
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pinned = dict((*requirement.split(" ", 1), "")[:2] for requirement in environment["dependencies"])
    assert pinned == wanted


def test_what_is_imported_is_a_stated_dependency():
    """An environment that holds more, by chance, runs code that fails on a new machine."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    stated = [
        *project["dependencies"],
        *(name for names in project["optional-dependencies"].values() for name in names),
    ]
    stated = {re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-") for requirement in stated}
    distributions = packages_distributions()
    imported = set()
    for source in [path for path in SOURCES if path.suffix == ".py"]:
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            imported |= {name.split(".")[0] for name in names}
    foreign = imported - sys.stdlib_module_names - {"models", "pipeline", "workflow"}
    assert len(foreign) > 20
    missing = {
        name
        for name in foreign
        if not {one.lower().replace("_", "-") for one in distributions.get(name, [name])} & stated
    }
    assert not missing


@pytest.mark.parametrize("generator", ["config/document.py", "docs/architecture.py"])
def test_the_generated_pages_are_up_to_date(generator):
    done = subprocess.run([sys.executable, ROOT / generator, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_configuration_that_is_shipped_is_valid():
    paths = [ROOT / "config" / "config.yaml", *(ROOT / "config" / "examples").glob("*.yaml")]
    assert len(paths) >= 4
    for path in paths:
        parse_settings(yaml.safe_load(path.read_text()), source=str(path))


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize("script", [*ROOT.glob("docs/*.py"), *ROOT.glob("config/**/*.py")], ids=lambda path: path.name)
def test_scripts_find_what_they_import(script):
    runpy.run_path(str(script), run_name="imported")


def code_of(page):
    """Return the code of a page: what stands in backticks, and the lines of its code blocks."""
    prose, *blocks = re.split(r"^```\w*\n(.*?)^```", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    prose = "\n".join([prose, *blocks[1::2]])
    return [*re.findall(r"`([^`\n]+)`", prose), *"\n".join(blocks[::2]).splitlines()]


def anchors_of(page):
    """Return the anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere():
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))]
    for page, link in links:
        path, _, anchor = link.partition("#")
        if not link.startswith("http"):
            target = page.parent / path if path else page
            assert target.exists(), f"{page}: {link}"
            assert not anchor or anchor in anchors_of(target), f"{page}: {link}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_a_page_has_each_heading_once(page):
    sections = re.findall(r"^## (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    assert len(set(sections)) == len(sections)


def test_files_that_the_documentation_names_exist():
    folders = "pipeline|models|workflow|profiles|tests|docs|config"
    of_users = {"config/samples.csv", "config/training.csv"}
    codes = {(page, code) for page in PAGES for code in code_of(page)}
    for page, code in codes:
        for path in re.findall(rf"(?<![\w./*-])(?:{folders})/[\w./-]*", code):
            placeholder = re.search(r"\b(NAME|FILE|ROOM|MODEL)\b", path)
            assert placeholder or path in of_users or (ROOT / path).exists(), f"{page}: {path}"
        for module in re.findall(r"python -m (tests[\w.]+\w)", code):
            assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists(), f"{page}: {module}"


def test_commands_that_the_documentation_names_exist():
    targets = re.findall(r"^([a-z][a-z0-9_ -]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    codes = {(page, code) for page in PAGES for code in code_of(page)}
    for page, code in codes:
        for target in re.findall(r"(?:^|\s)make ([a-z][a-z0-9_-]*)", code):
            assert target in " ".join(targets).split(), f"{page}: make {target}"
        for command in re.findall(r"(?:^|\s)(?:python -m pipeline|slidemill) ([a-z][^#|&>]*)", code):
            name, *rest = command.split()
            assert name in COMMANDS, f"{page}: {command}"
            flags = stage_parser(name, import_module(COMMANDS[name]).run).format_help()
            for flag in re.findall(r"--[a-z][a-z-]*", " ".join(rest)):
                assert re.search(rf"{flag}(?![\w-])", flags), f"{page}: {name} {flag}"


# Words at which readers stopped, and what to say instead.
BANNED = {
    r"mend(s|ed|ing)?": "fix",
    r"lived[ _]in": "with batch statistics",
    r"settle[sd]? (for|on|what|the|it)": "resolve, choose",
    r"(take|takes|taking) stock": "read the drop folder",
    r"living lock": "lock of a running process",
    r"without a word": "without a message",
    r"but for (the|those)": "except for",
    r"how good, how even": "mean score, spread over samples",
}


@pytest.mark.parametrize("words", BANNED)
def test_words_at_which_readers_stopped_do_not_return(words):
    pattern = re.compile(rf"\b({words})\b", re.IGNORECASE)
    found = [str(path) for path in [*PAGES, *SOURCES, ROOT / "Snakefile"] if pattern.search(path.read_text("utf-8"))]
    assert not found, f"say: {BANNED[words]}"


@pytest.fixture
def old_python(tmp_path):
    """A Python that is too old: it fails where a version is asked for, and says so wherever else it is called."""
    script = '#!/bin/sh\ncase "$2" in *version_info*) exit 1;; esac\ntouch called\n'
    (tmp_path / "python3.10").write_text(script)
    (tmp_path / "python3.10").chmod(0o755)
    return tmp_path / "python3.10"


def make(*words):
    command = ["make", "--file", str(ROOT / "Makefile"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_old_python_is_one_line_before_anything_is_made(old_python, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = make(".venv/bin/python", f"PYTHON={old_python}")
    assert done.returncode != 0
    assert done.stdout == f"{old_python}: Slidemill needs Python 3.11 or newer; name it: make ... PYTHON=python3.12\n"
    assert not (tmp_path / "called").exists()


def test_an_environment_of_an_old_python_is_made_anew(old_python, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    old_python.rename(tmp_path / ".venv" / "bin" / "python")
    done = make("--dry-run", ".venv/bin/python", f"PYTHON={sys.executable}")
    assert not (tmp_path / ".venv").exists()
    assert f"{sys.executable} -m venv .venv" in done.stdout
