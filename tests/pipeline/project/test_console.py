"""A run says what begins and ends, how far it is, and why a job was lost; Snakemake's own messages are in its log."""

import io
import logging
from pathlib import Path

import pytest

from pipeline.project import console as module
from pipeline.project.console import Console, span
from pipeline.project.jobs.ledger import Entry, ledger_path, write_ledger
from tests.support.pretended_run import do, lay_out, look, replace
from tests.support.runs import find_run

PLAN = ["3 samples, network unet: 5 jobs to do, of 1 batch; about 14 s", "  segment 3 samples with unet"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def logger():
    made = logging.Logger("snakemake")
    yield made
    for handler in made.handlers:
        handler.close()


def say(logger, event, level=logging.INFO, message="walls of file names", **fields):
    logger.log(level, message, extra={"event": event} | fields)


def begin(logger, stage="tile", batch="plate0/0001", number=1):
    say(logger, "job_info", rule_name=stage, jobid=number, wildcards={"model": "unet", "batch": batch})


def console(folder, logger, stream):
    handler = Console(find_run(folder, batches=1, samples=3), stream)
    logger.addHandler(handler)
    return handler


def lines_of(stream):
    return [line.partition(" ")[2] if line[2:3] == ":" else line for line in stream.getvalue().splitlines()]


def test_a_job_has_a_line_when_it_begins_and_one_when_it_ends(in_folder, logger):
    stream = io.StringIO()
    console(in_folder, logger, stream)
    begin(logger)
    with write_ledger(ledger_path("tile", "unet", "plate0/0001"), stage="tile", model="unet") as writer:
        writer.record("plate0/0", Entry(fingerprint=""))
    say(logger, "job_finished", job_id=1)
    say(logger, "progress", done=1, total=7)
    say(logger, "job_info", rule_name="finish", jobid=9, wildcards={})
    assert lines_of(stream) == [
        *PLAN,
        "tile of plate0/0001 with unet begins, 3 samples",
        "tile of plate0/0001 with unet took 0 s",
    ]


def test_the_samples_of_a_job_are_those_that_it_has_to_make(in_folder, logger):
    lay_out(in_folder)
    given = {"models": {"given": {"checkpoint": "network/model.safetensors"}}, "ensembles": {}}
    do(**given)
    replace("data/slides/plate/b.tif", 10**9)
    stream = io.StringIO()
    handler = Console(look(**given), stream)
    logger.addHandler(handler)
    say(logger, "job_info", rule_name="predict", jobid=1, wildcards={"model": "given", "batch": "plate/0001"})
    assert lines_of(stream)[-1] == "predict of plate/0001 with given begins, 1 sample"
    assert "predict 0 of 1 samples" in handler._state(handler.progress.look())


def test_a_job_with_nothing_to_do_after_one_that_failed_says_so(in_folder, logger):
    stream = io.StringIO()
    console(in_folder, logger, stream)
    begin(logger)
    with write_ledger(ledger_path("tile", "unet", "plate0/0001"), stage="tile", model="unet"):
        pass
    say(logger, "job_finished", job_id=1)
    assert lines_of(stream)[-1] == "tile of plate0/0001 with unet took 0 s, failed: a job before it did"


def test_a_job_that_is_lost_shows_the_end_of_its_log_once(in_folder, logger):
    stream = io.StringIO()
    console(in_folder, logger, stream)
    Path("x.log").write_text("\n".join(f"line {number}" for number in range(100)))
    logger.warning("low on memory")
    begin(logger)
    say(logger, "error", logging.ERROR, 'RuleException:\nCalledProcessError in file "segment.smk", line 31')
    say(logger, "job_error", logging.ERROR, jobid=1, log=["x.log"])
    logger.error("Exiting because a job execution failed. Look above for error messages")
    lines = lines_of(stream)
    assert lines[2] == "low on memory"
    assert lines[4] == "tile of plate0/0001 with unet was ended by an error"
    assert lines[5:] == ["  the end of x.log:", *(f"  line {number}" for number in range(85, 100))]


@pytest.mark.parametrize(
    "message",
    [
        "Nothing to be done (all requested files are present)",
        "Job 5 has been submitted with SLURM jobid 12 (log: tile.log).",
    ],
)
def test_what_a_user_waits_for_is_passed_on(in_folder, logger, message):
    stream = io.StringIO()
    console(in_folder, logger, stream)
    logger.info("Building DAG of jobs...")
    logger.info(message)
    logger.error("MissingInputException: no such file")
    assert lines_of(stream) == [*PLAN, message, "MissingInputException: no such file"]


def test_a_run_that_its_user_stops_says_so(in_folder, logger):
    stream = io.StringIO()
    handler = console(in_folder, logger, stream)
    assert not handler.is_stopped
    logger.warning("Terminating processes on user request, this might take some time.")
    assert handler.is_stopped
    assert lines_of(stream) == [*PLAN, "stopping"]


def test_a_file_gets_lines_without_control_characters_and_a_terminal_a_bar(in_folder, logger, monkeypatch):
    monkeypatch.setattr(module, "_LINE_S", 1)
    plain, terminal = io.StringIO(), Terminal()
    handlers = [console(in_folder, logger, stream) for stream in (plain, terminal)]
    begin(logger)
    for handler in handlers:
        while "%" not in handler._stream.getvalue() or "tile 0 of 3" not in handler._stream.getvalue():
            pass
        handler.end()
    assert "0 of 3 samples; tile of plate0/0001 with unet" in plain.getvalue()
    assert plain.getvalue().replace("\n", "").isprintable()
    assert "\r" in terminal.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(4.4, "4 s"), (99, "99 s"), (150, "2 min"), (7800, "2 h 10 min")])
def test_time_spans_are_written_as_people_say_them(seconds, text):
    assert span(seconds) == text
