"""What a run is going to do and why, in a few lines, with the time that it will take."""

from __future__ import annotations

from pipeline.project.jobs.expected import STAGES
from pipeline.project.jobs.order import Job
from pipeline.project.jobs.progress import expected_seconds
from pipeline.project.jobs.run import Run

_MOST_LINES = 12
_OF_NETWORKS = {"train": "train {}", "combine": "average the networks of {}", "validate": "validate {}"}
_OF_SAMPLES = {
    "tile": "segment {} with {}",
    "predict": "predict {} with {}",
    "stitch": "make the masks of {} with {}",
    "objects": "measure the objects of {} with {}",
    "evaluate": "evaluate {} with {}",
}


def announced(run: Run) -> list[str]:
    """Return the lines; none if nothing is to do."""
    if not run.todo.jobs:
        return []
    order = [*_OF_NETWORKS, *STAGES]
    lines = []
    reasons = [one for one in run.todo.reasons.items() if one[0].stage != "weigh"]  # it belongs to the training
    for (stage, model, text), count in sorted(reasons, key=lambda one: (order.index(one[0].stage), one[0])):
        again = f" again: {text}" if text else ""
        if stage in _OF_NETWORKS:
            seconds = expected_seconds(run, Job(stage, model))
            lines.append(f"{_OF_NETWORKS[stage].format(model)}{again} (about {span(seconds)})")
        else:
            lines.append(_OF_SAMPLES[stage].format(counted(count, "sample"), model) + again)
    left = len(lines) - _MOST_LINES
    lines = lines[:_MOST_LINES] + ([f"... and for {counted(left, 'more reason')}"] if left > 0 else [])
    return [_headline(run), *(f"  {line}" for line in lines)]


def _headline(run: Run) -> str:
    samples, networks = counted(len(run.samples), "sample"), ", ".join(run.settings.networks)
    batches = len({job.batch for job in run.todo.jobs} - {""})
    of_batches = f", of {counted(batches, 'batch', 'batches')}" if batches else ""
    seconds = sum(expected_seconds(run, job) for job in run.todo.jobs)
    jobs = counted(len(run.todo.jobs), "job")
    return f"{samples}, network {networks}: {jobs} to do{of_batches}; about {span(seconds)}"


def span(seconds: float) -> str:
    """Return a time span in words, such as ``3 min`` or ``2 h 10 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def counted(number: int, one: str, more: str = "") -> str:
    """Return a number with its word, in the plural if it is not one."""
    return f"{number} {one if number == 1 else more or one + 's'}"
