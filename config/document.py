"""Write config/README.md and workflow/schemas/config.schema.json from pipeline/config.py: ``make docs``.

With ``--check`` nothing is written; the exit status says whether the two files are up to date.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from pipeline.config import ModelConfig, Settings

ROOT = Path(__file__).parents[1]
README, SCHEMA = ROOT / "config" / "README.md", ROOT / "workflow" / "schemas" / "config.schema.json"

_HEAD = """# Configuration

`config/config.yaml` holds the scientific choices; how jobs run (cores, memory, cluster) is in `profiles/`.
Every key has a default, so a configuration states what differs. An unknown key, a value of the wrong type or out of its
range stops the workflow before the first job, with one line that names it.

A changed setting runs again the stages that use it and what depends on them; a changed comment runs nothing.
`snakemake --cores 4 --config 'masks={instances: false}'` overrides a key for one run.

Paths are relative to the project folder, the one that `snakemake` runs in (or `--directory`). Ready configurations are
in `config/examples/`. `make docs` writes this page and `workflow/schemas/config.schema.json` from `pipeline/config.py`.

```yaml
{example}```
"""

_TAIL = """
## Labels and references

Training labels and references are read in the same way. With `training.kind: instances` a pixel holds the id of its
object, 0 is background, and objects become the second class; where two objects touch, training puts a one-pixel ridge
of background between them. With `training.kind: classes` a pixel holds the value of its class (`training.values`).

## A trained network instead of training

```yaml
models:
  unet:
    checkpoint: networks/nuclei/model.safetensors # model.json beside it
```

Training images are then neither needed nor read. Everything about the network (architecture, options, classes) comes
from its `model.json`; `classes` in the configuration must still name them, for the metrics.
"""


def readme() -> str:
    """Return the text of config/README.md."""
    example = (ROOT / "config" / "config.yaml").read_text(encoding="utf-8").split("\n", 1)[1]
    return _HEAD.replace("{example}", example) + "".join(_sections(Settings)) + _TAIL


def schema() -> str:
    """Return the JSON schema, for editors that complete and check YAML."""
    content = Settings.model_json_schema()
    content["title"] = "Slidemill configuration"
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _sections(kind: type[BaseModel], prefix: str = "", title: str = "Top level") -> Iterator[str]:
    keys = {name: field for name, field in kind.model_fields.items() if not _subsection(field.annotation)}
    yield f"\n## {title}\n\n{kind.__doc__}\n\n| key | default | limits | meaning |\n|---|---|---|---|\n"
    for name, field in keys.items():
        description = (field.description or "").replace("|", "\\|")
        yield f"| `{prefix}{name}` | {_default(field)} | {_limits(kind, name)} | {description} |\n"
    for name, field in kind.model_fields.items():
        if section := _subsection(field.annotation):
            yield from _sections(section, f"{prefix}{name}.", f"`{prefix}{name}`")
        if name == "models":
            yield from _sections(ModelConfig, "models.NAME.", "`models.NAME`")


def _subsection(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, dict) and any(isinstance(part, BaseModel) for part in value.values()):
        return "one `unet`"
    return f"`{json.dumps(value)}`"


def _limits(kind: type[BaseModel], name: str) -> str:
    """Say type and range in a few words, from the JSON schema of the field."""
    described = kind.model_json_schema()["properties"][name]
    choices = [choice for choice in described.get("anyOf", [described]) if choice.get("type") != "null"]
    choice = choices[0]
    if "enum" in choice:
        return ", ".join(f"`{value}`" for value in choice["enum"])
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {choice[key]:g}" for key, sign in signs.items() if key in choice]
    names = {"integer": "whole number", "number": "number", "boolean": "`true`, `false`", "string": "text"}
    words = names.get(choice.get("type", ""), {"array": "list", "object": "mapping"}.get(choice.get("type", ""), ""))
    return ", ".join([words, *bounds]) + (" or null" if len(choices) < len(described.get("anyOf", [described])) else "")


def main(arguments: list[str]) -> int:
    """Write or check both files; return the exit status."""
    stale = []
    for path, text in ((README, readme()), (SCHEMA, schema())):
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.relative_to(ROOT))
            if "--check" not in arguments:
                path.write_text(text, encoding="utf-8")
    if stale:
        print("out of date, run `make docs`:" if "--check" in arguments else "written:", *stale)
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
