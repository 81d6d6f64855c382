"""The summary of a run: how many samples are done, failed and waiting, why, and what to do."""

from __future__ import annotations

import csv
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean

from pipeline.base import paths
from pipeline.base.errors import Failure
from pipeline.base.files import read_json
from pipeline.project.jobs.ledger import read_ledger
from pipeline.project.jobs.order import network_jobs
from pipeline.project.stage_settings import network_file
from pipeline.settings.schema import Settings

_MOST_REASONS = 10


def last_lines(folder: Path, settings: Settings) -> tuple[str, int]:
    """Return the last lines of a run, from ``metrics-all.csv`` in ``folder``, and how many samples and networks failed.

    Samples with the same reason share a line. If their network failed, that is its line, and they are without a mask.
    """
    table, every, page = (folder / Path(path).name for path in (paths.METRICS_TABLE, paths.ALL_METRICS, paths.PAGE))
    with every.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    counts = Counter(row["status"] for row in rows)
    reasons: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for row in rows:
        if row["status"] != "done":
            at = f" at {row['stage']}" if row["stage"] else ""
            reasons[row["status"], at, row["error"], row["log"]].append(row["sample"])
    networks: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, failure in _failed_networks(settings):
        key = ("failed", f" at {failure.stage}", failure.message, failure.log)
        networks[key].append(name)
        counts["failed"] += not reasons[key]
    lines = [_headline(counts, settings)]
    for reason, samples in sorted(reasons.items())[:_MOST_REASONS]:
        status, at, error, log = reason
        without = f"; no mask of {_named(samples)}" if reason in networks and samples else ""
        named = _named(networks.get(reason) or samples)
        lines.append(f"  {status}: {named}{at}: {error}" + (f" ({log})" if log else "") + without)
    lines += _mean_dice(rows, settings)
    if learned := sum(row.get("learned") == "yes" for row in rows):
        lines.append(f"  {learned} of them are training images: left out of means, ranking and tests")
    if len(reasons) > _MOST_REASONS:
        lines.append(f"  ... and {len(reasons) - _MOST_REASONS} more reasons")
    if counts["failed"]:
        lines.append(
            f"fix what failed and run the same command again; what is finished is kept. Details: {table}, {page}"
        )
    elif counts["done"] or not rows:
        lines.append(f"look at {page}; the numbers are in {table}, the masks in {folder / 'masks'}")
    return "\n".join(lines), counts["failed"]


def _named(those: list[str]) -> str:
    return those[0] + (f" and {len(those) - 1} more" if len(those) > 1 else "")


def print_last_lines(settings: Settings) -> None:
    """Print the last lines of the run in the current folder, if it has a report."""
    if not Path(paths.ALL_METRICS).exists():
        return
    print(f"\n{last_lines(Path(paths.REPORT), settings)[0]}", file=sys.stderr)


def print_verifications(files: Iterable[str]) -> None:
    """Print how often tiles equal one pass over the whole, from the files of `verify` that are there."""
    found = Counter(str(read_json(Path(path)).get("law")) for path in files if Path(path).is_file())
    said = ", ".join(f"{law} on {count} of {sum(found.values())}" for law, count in sorted(found.items()))
    print(f"verification (tiles equal one pass over the whole): {said or 'no slide'}", file=sys.stderr)


def _mean_dice(rows: list[dict[str, str]], settings: Settings) -> Iterator[str]:
    """Yield a line per network: the mean Dice of each class over the samples with a reference, but training images."""
    for model in list(settings.networks)[:_MOST_REASONS]:
        scored = [row for row in rows if row.get("model") == model and row.get("learned") != "yes"]
        dice = {
            label: [row[f"dice_{label}"] for row in scored if row.get(f"dice_{label}")] for label in settings.classes
        }
        means = [f"{label} {fmean(map(float, of_class)):.3f}" for label, of_class in dice.items() if of_class]
        if means:
            yield f"  mean Dice with {model}: {', '.join(means)} ({max(map(len, dice.values()))} with a reference)"


def _headline(counts: Counter[str], settings: Settings) -> str:
    if sum(counts.values()):
        return ", ".join(f"{counts[status]} {status}" for status in ("done", "failed", "waiting") if counts[status])
    there = [name for name in settings.networks if Path(network_file(settings, name)).is_file()]
    return f"no slides; trained: {', '.join(there)}"


def _failed_networks(settings: Settings) -> Iterator[tuple[str, Failure]]:
    """Yield the jobs of networks that failed."""
    for job in network_jobs(settings):
        entry = read_ledger(Path(job.ledger)).get(job.model)
        if entry and entry.failure:
            yield job.model, entry.failure
