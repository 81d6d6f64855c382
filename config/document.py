"""Write the generated documentation: ``make docs``.

config/README.md and workflow/schemas/config.schema.json come from pipeline/settings/schema.py, docs/metrics.md from
pipeline/report/columns.py, docs/measurements.md from pipeline/masks/measurements/dictionary.py, docs/models.md from
measurements of every architecture, the table of files in docs/contracts.md from pipeline/base/paths.py. The text around
them is in config/pages. ``--check`` writes nothing; its exit status is 1 if a file is out of date.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from inspect import cleandoc
from itertools import groupby
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from pipeline.base import paths
from pipeline.commands.models import markdown
from pipeline.masks.measurements.dictionary import DICTIONARY, PLANES, SCORE
from pipeline.report.columns import columns
from pipeline.settings.ensembles import EnsembleConfig
from pipeline.settings.networks import ModelConfig
from pipeline.settings.schema import Settings

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "config" / "pages"
README, SCHEMA = ROOT / "config" / "README.md", ROOT / "workflow" / "schemas" / "config.schema.json"
MODELS, METRICS, MEASUREMENTS, CONTRACTS = (
    ROOT / "docs" / f"{name}.md" for name in ("models", "metrics", "measurements", "contracts")
)
_BEGIN, _END = "<!-- paths: written by make docs -->\n", "<!-- end of paths -->\n"


def _page(name: str, **parts: str) -> str:
    """Return a page of config/pages with what is in braces replaced by the part of that name."""
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    for part, content in parts.items():
        text = text.replace(f"{{{part}}}", content)
    return text


def readme() -> str:
    """Return the text of config/README.md."""
    example = (ROOT / "config" / "config.yaml").read_text(encoding="utf-8").split("\n", 1)[1]
    return _page("configuration", example=example, sections="".join(_sections(Settings)))


def models_page() -> str:
    """Return the text of docs/models.md."""
    return _page("models", table="\n".join(markdown()))


def metrics_page() -> str:
    """Return the text of docs/metrics.md."""
    shown = {column.name: column.about.replace("|", "\\|") for column in columns(["{class}"])}
    rows = [f"| `{name}` | {about} |" for name, about in shown.items()]
    return _page("metrics", table="\n".join(rows))


def measurements_page() -> str:
    """Return the text of docs/measurements.md."""
    tables = []
    for group, rows in groupby([*DICTIONARY, *PLANES.values(), SCORE], key=lambda one: one.group):
        tables += [
            f"## {group or 'Always'}\n",
            "| column | unit | QuPath | CellProfiler | meaning |",
            "|---|---|---|---|---|",
        ]
        for one in rows:
            names = (f"`{name}`" if name else "" for name in (one.title, one.cellprofiler))
            tables.append(f"| `{one.column}` | {one.unit} | {' | '.join(names)} | {one.about} |")
        tables.append("")
    return _page("measurements", table="\n".join(tables))


# Names in pipeline/base/paths.py. The rules declare only ledgers, and what `verify`, `report` and `finish` write.
_REPORT = (
    "METRICS_TABLE ALL_METRICS COLUMNS SUMMARY ALL_OBJECTS ALL_REGIONS COMPARISON COHORT PAIRED FOLDS FIGURE PAGE "
    "PROVENANCE"
)
_WRITTEN_BY = {
    "the workflow, when a run begins": "SLIDES",
    "the workflow, when a run ends": "DONE",
    "the jobs of networks": "NETWORK_LEDGER",
    "`weigh`": "WEIGHT_MAP",
    "`train`": "NETWORK CARD HISTORY HELD_BACK",
    "`combine`": "NETWORK CARD",
    "`validate`": "VALIDATION",
    "the jobs of batches": "LEDGER",
    "`tile`": "PLAN TISSUE",
    "`predict`": "PREDICTION PLANE_PREDICTION PLANE_MEASURED",
    "`stitch`": "MASK",
    "`objects`": "OBJECTS ANNOTATIONS REGIONS",
    "`evaluate`": "METRICS",
    "`verify`": "VERIFICATION",
    "`report`": _REPORT,
    "`finish`": "FINISHED",
}


def contracts_page() -> str:
    """Return the text of docs/contracts.md with a new table of the files that the stages write."""
    rows = [
        f"| {', '.join(f'`{getattr(paths, name)}`' for name in names.split())} | {writer} |"
        for writer, names in _WRITTEN_BY.items()
    ]
    rows += ["| `results/pictures/{model}/{sample}...` | `objects`, `evaluate`: small pictures for the page |"]
    rows += ["| `logs/...`, `benchmarks/...` | Snakemake, per job: output of the stage; time and memory |"]
    head, _, rest = CONTRACTS.read_text(encoding="utf-8").partition(_BEGIN)
    table = "\n".join(["| path below the project | written by |", "|---|---|", *rows])
    return f"{head}{_BEGIN}{table}\n{_END}{rest.partition(_END)[2]}"


def schema() -> str:
    """Return the JSON schema, for editors that complete and check YAML."""
    content = Settings.model_json_schema()
    for section in [content, *content["$defs"].values()]:
        for part in section["properties"].values():
            part.pop("title", None)  # the key with capital letters
            if "$ref" in part or "additionalProperties" in part:
                part.pop("default", None)  # of a section: its keys have their own
            match part.get("anyOf"):
                case [{"type": str(kind), **limits}, {"type": "null"}]:  # shorter, and clearer in messages of editors
                    del part["anyOf"]
                    part.update(limits, type=[kind, "null"])
    content["title"] = "Slidemill configuration"
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _sections(kind: type[BaseModel], prefix: str = "", title: str = "Top level") -> Iterator[str]:
    keys = {name: field for name, field in kind.model_fields.items() if not _subsection(field.annotation)}
    yield f"\n## {title}\n\n{cleandoc(kind.__doc__ or '')}\n\n| key | default | limits | meaning |\n|---|---|---|---|\n"
    for name, field in keys.items():
        description = (field.description or "").replace("|", "\\|")
        yield f"| `{prefix}{name}` | {_default(field)} | {_limits(kind, name)} | {description} |\n"
    for name, field in kind.model_fields.items():
        if section := _subsection(field.annotation) or _optional_subsection(field.annotation):
            yield from _sections(section, f"{prefix}{name}.", f"`{prefix}{name}`")
        if name == "models":
            yield from _sections(ModelConfig, "models.NAME.", "`models.NAME`")
        if name == "ensembles":
            yield from _sections(EnsembleConfig, "ensembles.NAME.", "`ensembles.NAME`")


def _subsection(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _optional_subsection(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a key holds unless it is null; such a key has a row of its own too."""
    choices = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ()
    return next((choice for choice in choices if _subsection(choice)), None)


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, dict) and any(isinstance(part, BaseModel) for part in value.values()):
        return "one `unet`"
    return f"`{json.dumps(value)}`"


def _limits(kind: type[BaseModel], name: str) -> str:
    """Return type and range in a few words, from the JSON schema of the field."""
    described = kind.model_json_schema()["properties"][name]
    choices = [choice for choice in described.get("anyOf", [described]) if choice.get("type") != "null"]
    choice = choices[0]
    if "enum" in choice:
        return ", ".join(f"`{value}`" for value in choice["enum"])
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {choice[key]:g}" for key, sign in signs.items() if key in choice]
    names = {"integer": "whole number", "number": "number", "boolean": "`true`, `false`", "string": "text"}
    kind_of_json = "object" if "$ref" in choice else choice.get("type", "")
    words = (names | {"array": "list", "object": "mapping"}).get(kind_of_json, "")
    values = [
        value for other in choices[1:] for value in other.get("enum", [other["const"]] if "const" in other else [])
    ]
    fixed = [f"`{value}`" for value in values]
    fixed += ["null"] if len(choices) < len(described.get("anyOf", [described])) else []
    return " or ".join([", ".join([words, *bounds]), *fixed])


def main(arguments: list[str]) -> int:
    """Write or check the files; return the exit status."""
    stale = []
    pages = {
        README: readme,
        SCHEMA: schema,
        METRICS: metrics_page,
        MEASUREMENTS: measurements_page,
        MODELS: models_page,
        CONTRACTS: contracts_page,
    }
    for path, make in pages.items():
        text = make()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.relative_to(ROOT))
            if "--check" not in arguments:
                path.write_text(text, encoding="utf-8")
    if stale:
        print("out of date, run `make docs`:" if "--check" in arguments else "written:", *stale)
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
