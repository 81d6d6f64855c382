"""The table of what ``verify`` found for each model: whether tiled prediction equals one pass over the whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.base.errors import SlidemillError
from pipeline.base.files import read_json
from pipeline.base.paths import VERIFICATION
from pipeline.report.page.page_types import Column, Table

_COLUMNS = [
    Column(name="model"),
    Column(name="slides", about="Slides that were verified, each on one piece.", digits=0),
    Column(name="law", about="Whether tiled prediction equals one pass on all of them."),
    Column(name="float64", about="Largest difference of logits in double precision; at most 1e-10."),
    Column(name="flips", about="Labels that differ in double precision.", digits=0),
    Column(name="float32", about="Largest difference of logits as predicted; at most 1e-4."),
    Column(name="flips_outside_ties", about="Labels that differ as predicted, ties excluded.", digits=0),
    Column(name="crf", about="Largest difference of probabilities after `masks.crf`, as computed; at most 1e-5."),
    Column(
        name="mismatch",
        about="With global context: largest share of labels that differ from one pass; with detection, of objects.",
        digits=4,
    ),
]


def verification_tables(samples: Iterable[Mapping[str, Any]]) -> list[Table]:
    """Return the table of all verifications, or none.

    ``samples`` are those of ``provenance.json``. A verification of another network or of a replaced slide is ignored.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for sample in samples:
        if verification := _verification_of(sample):
            found.setdefault(sample["model"], []).append(verification)
    caption = (
        "Tiled prediction of a piece of each slide, compared with one pass over the piece (`snakemake verification`). "
        "It need not be equal for a network with global context; then the mismatch is measured."
    )
    rows = [_row(model, verifications) for model, verifications in found.items()]
    return [Table(title="Verification", caption=caption, columns=_COLUMNS, rows=rows)] if rows else []


def _verification_of(sample: Mapping[str, Any]) -> dict[str, Any] | None:
    path = Path(VERIFICATION.format(model=sample["model"], sample=sample["sample"]))
    try:
        verification = read_json(path) if path.is_file() else {}
        made_from = verification.get("provenance", {}).get("sha256")
    except (SlidemillError, AttributeError):
        return None
    return verification if made_from == {"weights": sample["weights_sha256"], "slide": sample["slide_sha256"]} else None


def _row(model: str, verifications: list[dict[str, Any]]) -> dict[str, Any]:
    laws = {verification["law"] for verification in verifications}
    checks = [check for verification in verifications for check in verification["checks"]]
    row: dict[str, Any] = {"model": model, "slides": len(verifications)}
    row["law"] = next(law for law in ("broken", "does not apply", "holds") if law in laws)
    for precision, flips in (("float64", "flips"), ("float32", "flips_outside_ties")):
        of_it = [check for check in checks if check["precision"] == precision]
        row[precision] = _largest_difference(of_it)
        row[flips] = sum(check[flips] for check in of_it) if of_it else None
    of_fields = [check for verification in verifications for check in verification.get("crf", [])]
    row["crf"] = _largest_difference([check for check in of_fields if check["precision"] == "float32"])
    row["mismatch"] = max(
        (verification["mismatch"] for verification in verifications if verification["mismatch"] is not None),
        default=None,
    )
    return row


def _largest_difference(checks: list[dict[str, Any]]) -> str | None:
    return f"{max(check['max_difference'] for check in checks):.1e}" if checks else None
