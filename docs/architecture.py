"""Fill docs/architecture.md and docs/decisions/README.md: the rooms and their modules, and the list of decisions.

The texts come from the docstrings and from the decisions; ``make docs`` writes them. With ``--check`` nothing is
written, and the exit status says whether the pages are up to date.
"""

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
    (table,) = re.findall(r"^ROOMS = (\[.*?^\])", text, re.DOTALL | re.MULTILINE)
    for name in ast.literal_eval(table):
        folder = ROOT.joinpath(*name.split("."))
        yield from sorted(path.parent for path in folder.rglob("__init__.py")) if "." in name else [folder]


def room_table() -> str:
    """Return a table of all modules by their first sentences, below the first paragraph of each folder."""
    rows = ["| | |", "|---|---|"]
    for room in rooms():
        rows.append(f"| **{room.relative_to(ROOT).as_posix()}/** | **{docstring(room / '__init__.py')}** |")
        modules = [path for path in sorted(room.glob("*.py")) if path.name != "__init__.py"]
        rows += [f"| `{path.name}` | {first_sentence(docstring(path))} |" for path in modules]
    return "\n".join(rows)


def decision_table() -> str:
    """Return a row for each decision: its number, its title, the first sentence of what was decided."""
    rows = ["| | title | decided |", "|--:|---|---|"]
    for path in sorted(DECISIONS.parent.glob("[0-9]*.md")):
        text = path.read_text("utf-8")
        number, title = re.findall(r"# (\d+)\. (.+)", text)[0]
        decided = re.split(r"## Decision\s|\*\*Decision\.\*\*", text)[1]
        rows.append(f"| {number} | [{title}]({path.name}) | {first_sentence(decided)} |")
    return "\n".join(rows)


def docstring(path: Path) -> str:
    """Return the first paragraph of the docstring of a file, in Markdown."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    paragraph = " ".join(text.partition("\n\n")[0].split()).replace("|", "\\|")
    return re.sub(r":\w+:`|``", "`", paragraph)


def first_sentence(text: str) -> str:
    """Return the first sentence of a text."""
    return " ".join(re.split(r"(?<=\.)\s+(?=[A-Z`*-])|\n\n", text.strip(), maxsplit=1)[0].split())


def main(arguments: list[str]) -> int:
    """Write or check the table of each page, between two comments; return the exit status."""
    stale = []
    for page, name, table in ((PAGE, "rooms", room_table()), (DECISIONS, "decisions", decision_table())):
        old = page.read_text("utf-8")
        before, _, rest = old.partition(f"<!-- {name} -->")
        _, _, after = rest.partition(f"<!-- /{name} -->")
        new = f"{before}<!-- {name} -->\n{table}\n<!-- /{name} -->{after}"
        if new != old:
            stale.append(page.relative_to(ROOT))
            if "--check" not in arguments:
                page.write_text(new, "utf-8")
    if stale:
        print("out of date, run `make docs`:" if "--check" in arguments else "written:", *stale)
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
