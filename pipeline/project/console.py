"""What a run says: a line when a job begins and ends, and every minute, or in a bar, how far it is.

All that Snakemake says is in its own log, whose name is in the last line.
"""

from __future__ import annotations

import itertools
import logging
import math
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from pipeline.project.jobs.announced import announced, counted, span
from pipeline.project.jobs.expected import STAGES
from pipeline.project.jobs.ledger import read_ledger
from pipeline.project.jobs.order import Job
from pipeline.project.jobs.progress import Progress, Seen
from pipeline.project.jobs.run import Run

_LINE_S = 60
_BAR = "{percentage:3.0f} % |{bar:20}| {desc}"
_MOST_LOG_LINES = 15
_STAGE_OF_RULE = {"train_network": "train"}
_UNTOLD = ("finish", "all", "train")  # they take no time, and the last lines follow
_REPEATED = ("CalledProcessError in file", "Cannot restore")  # what the line about the job says, or of no use
_SUBMITTED = "has been submitted"  # with the number of a job, by which the user of a cluster finds it
_STOPPED = "Terminating processes on user request"
_PASSED_ON = ("Nothing to be done", "Will exit after", "Shutting down", "Trying to restart")


class Console(logging.Handler):
    """Turns the messages of Snakemake about jobs into lines; it takes the place of Snakemake's own handler.

    Warnings are passed on, and so are errors until a job has failed. From then on they repeat what its log says.

    Parameters
    ----------
    run : Run
        What is run.
    stream : TextIO
        A terminal gets a bar at its end, any other file a line a minute.
    """

    def __init__(self, run: Run, stream: TextIO = sys.stderr) -> None:
        super().__init__()
        assert self.lock is not None
        self._lock = self.lock
        self.progress = Progress(run)
        self.has_failed = False
        self.is_stopped = False
        samples: Counter[str] = Counter()
        for job, size in run.todo.sizes.items():
            samples[job.stage] += size
        self._total = max(samples.values(), default=0)
        self._stream = stream
        self._jobs: dict[int, Job] = {}
        self._bar = tqdm(total=100, file=stream, bar_format=_BAR, leave=False) if stream.isatty() else None
        self._ended = threading.Event()
        for line in announced(run):
            self.say(line)
        threading.Thread(target=self._tick, daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Print what a record of Snakemake says, if a user needs it."""
        try:
            event = str(getattr(record, "event", None))
            if event == "job_info":
                self._begins(record)
            elif event == "job_finished":
                self._ends(record)
            elif event == "job_error":
                self._fails(record)
            elif str(record.msg).startswith(_STOPPED):
                self.is_stopped = True
                self.say("stopping")
            elif self._is_passed_on(record):
                self.say(record.getMessage())
        except Exception:  # as logging does: what is printed must not end a run
            self.handleError(record)

    def end(self) -> None:
        """Remove the bar, and say no more of the progress."""
        self._ended.set()
        with self._lock:
            if self._bar is not None:
                self._bar.close()
            self._bar = None

    def close(self) -> None:
        """Take no more records."""
        self.end()
        super().close()

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if self._bar is None:
            print(line, file=self._stream, flush=True)
        else:
            self._bar.write(line, file=self._stream)

    def _is_passed_on(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return str(record.msg).startswith(_PASSED_ON) or _SUBMITTED in str(record.msg)
        if self.has_failed and record.levelno >= logging.ERROR:
            return False
        return not any(text in str(record.msg) for text in _REPEATED)

    def _begins(self, record: logging.LogRecord) -> None:
        fields = vars(record)
        if fields["rule_name"] in _UNTOLD:
            return
        wildcards = fields["wildcards"]
        job = Job(
            _STAGE_OF_RULE.get(fields["rule_name"], fields["rule_name"]),
            wildcards.get("model", ""),
            wildcards.get("batch", ""),
        )
        self._jobs[fields["jobid"]] = job
        self.progress.begin(job)
        count = self.progress.size(job)
        self._say_now(f"{_name(job)} begins" + (f", {counted(count, 'sample')}" if count else ""))

    def _ends(self, record: logging.LogRecord) -> None:
        job = self._jobs.get(vars(record)["job_id"])
        if job is None:
            return
        seconds = self.progress.end(job)
        outcome = _outcome(job) if job in self.progress.planned else ""
        self._say_now(f"{_name(job)} took {span(seconds)}{outcome}")

    def _fails(self, record: logging.LogRecord) -> None:
        fields = vars(record)
        self.has_failed = True
        job = self._jobs.get(fields["jobid"])
        if job is None:  # finish, which fails if a sample did; the last lines of the run say it
            return
        self.progress.end(job)
        self._say_now(f"{_name(job)} was ended by an error")
        for path in fields["log"]:
            text = Path(path).read_text(encoding="utf-8", errors="replace") if Path(path).is_file() else ""
            lines = [f"the end of {path}:", *text.splitlines()[-_MOST_LOG_LINES:]]
            self.say("\n".join(f"  {line}" for line in lines))

    def _say_now(self, text: str) -> None:
        self.say(f"{time.strftime('%H:%M:%S')} {text}")

    def _tick(self) -> None:
        """Say how far the run is, until it has ended."""
        for second in itertools.count(1):
            if self._ended.wait(1.0):
                return
            seen = self.progress.look()
            with self._lock:
                if self._bar is None and second % _LINE_S == 0:
                    self._say_now(f"{100 * seen.share:.0f} % done: {self._state(seen)}")
                elif self._bar is not None:
                    self._bar.n = round(100 * seen.share)
                    self._bar.set_description_str(self._state(seen))

    def _state(self, seen: Seen) -> str:
        """Return the time that is left, how many samples are through with each stage, and what is running."""
        parts = [] if math.isnan(seen.left_s) else [f"about {span(seen.left_s)} left"]
        stages = [stage for stage in STAGES if stage in seen.samples]
        through = ", ".join(f"{stage} {seen.samples[stage]}" for stage in stages)
        parts += [f"{through} of {self._total} samples"] if through else []
        parts += [_name(seen.running[0])] if len(seen.running) == 1 else []
        parts += [f"{len(seen.running)} jobs are running"] if len(seen.running) > 1 else []
        return "; ".join(parts)


def _outcome(job: Job) -> str:
    """Return what the line of a job that has ended says of failures."""
    entries = read_ledger(Path(job.ledger))
    if Path(job.ledger).is_file() and not entries:
        return ", failed: a job before it did"
    failed = sum(not entry.is_done for entry in entries.values())
    return f", {failed} failed" if failed else ""


def _name(job: Job) -> str:
    if job.batch:
        return f"{job.stage} of {job.batch} with {job.model}"
    return f"{job.stage} of {job.model}" if job.model else job.stage
