"""Fill docs/architecture.md and docs/decisions/README.md: the rooms and their modules, and the list of decisions.

The texts come from the docstrings and from the decisions; ``make docs`` writes them. With ``--check`` nothing is
written, and the exit status says whether the pages are up to date.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE, DECISIONS = ROOT / "docs" / "architecture.md", ROOT / "docs" / "decisions" / "README.md"


def rooms() -> Iterator[Path]:
    """Yield the folders of the code in the order of imports, which stands in the test of that order."""
    text = (ROOT / "tests" / "test_architecture.py").read_text("utf-8")
    for name in ast.literal_eval(re.search(r"^ROOMS = (\[.*?^\])", text, re.DOTALL | re.MULTILINE)[1]):
        folder = ROOT.joinpath(*name.split("."))
        yield from sorted(path.parent for path in folder.rglob("__init__.py")) if "." in name else [folder]


def room_tables() -> str:
    """Return what every folder is for, and a table of its modules."""
    parts = []
    for room in rooms():
        modules = [path for path in sorted(room.glob("*.py")) if path.name != "__init__.py"]
        rows = [f"| `{path.name}` | {_sentence(_docstring(path))} |" for path in modules]
        table = ["", "| module | |", "|---|---|", *rows] if rows else []
        head = [f"### `{room.relative_to(ROOT).as_posix()}/`", "", _docstring(room / "__init__.py")]
        parts.append("\n".join([*head, *table]))
    return "\n\n".join(parts)


def decision_table() -> str:
    """Return a row for each decision: its number, its title, the first sentence of what was decided."""
    rows = []
    for path in sorted(DECISIONS.parent.glob("[0-9]*.md")):
        text = path.read_text("utf-8")
        number, title = re.match(r"# (\d+)\. (.+)", text).groups()
        decided = re.split(r"## Decision\s+(?:- )?|\*\*Decision\.\*\* ", text)[1]
        sentence = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", _sentence(decided)).replace("**", "")
        rows.append(f"| {number} | [{title}]({path.name}) | {sentence} |")
    return "\n".join(["| | title | decided |", "|--:|---|---|", *rows])


def filled(page: Path, block: str, content: str) -> str:
    """Return the text of a page with new content between its marks ``<!-- block -->`` and ``<!-- /block -->``."""
    head, _, rest = page.read_text("utf-8").partition(f"<!-- {block} -->\n")
    _, mark, tail = rest.partition(f"<!-- /{block} -->")
    if not mark:
        raise SystemExit(f"{page}: no marks <!-- {block} --> and <!-- /{block} -->, each on a line of its own")
    return f"{head}<!-- {block} -->\n{content}\n{mark}{tail}"


def _docstring(path: Path) -> str:
    """Return the first paragraph of the docstring of a file, in Markdown."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    paragraph = " ".join(text.partition("\n\n")[0].split()).replace("|", "\\|")
    return re.sub(r":\w+:`|``", "`", paragraph)


def _sentence(text: str) -> str:
    """Return the first sentence of a text."""
    return " ".join(re.split(r"(?<=\.)\s+(?=[A-Z`*-])|\n\n", text.strip(), maxsplit=1)[0].split())


def main(arguments: list[str]) -> int:
    """Write or check the pages; return the exit status."""
    stale = []
    for page, block, content in ((PAGE, "rooms", room_tables()), (DECISIONS, "decisions", decision_table())):
        text = filled(page, block, content)
        if page.read_text("utf-8") != text:
            stale.append(page.relative_to(ROOT))
            if "--check" not in arguments:
                page.write_text(text, "utf-8")
    if stale:
        print("out of date, run `make docs`:" if "--check" in arguments else "written:", *stale)
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
