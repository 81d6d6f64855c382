"""The summary of a run: how many samples are done, failed and waiting, why, and what to do."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path

_MOST_REASONS = 10


def last_lines(table: Path, page: Path) -> str:
    """Return the last lines of a run, from ``results/metrics.csv``; samples with the same reason share a line."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    counts = Counter(row["status"] for row in rows)
    reasons: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for row in rows:
        if row["status"] != "done":
            at = f" at {row['stage']}" if row["stage"] else ""
            reasons[row["status"], at, row["error"], row["log"]].append(row["sample"])
    lines = [", ".join(f"{counts[status]} {status}" for status in ("done", "failed", "waiting") if counts[status])]
    for (status, at, error, log), samples in sorted(reasons.items())[:_MOST_REASONS]:
        others = len(samples) - 1
        named = samples[0] + (f" and {others} more" if others else "")
        lines.append(f"  {status}: {named}{at}: {error}" + (f" ({log})" if log else ""))
    if len(reasons) > _MOST_REASONS:
        lines.append(f"  ... and {len(reasons) - _MOST_REASONS} more reasons")
    if counts["failed"]:
        lines.append(
            f"fix what failed and run the same command again; finished samples are kept. Details: {table}, {page}"
        )
    return "\n".join(lines)
