"""Why a job failed can be read back from its log."""

import traceback

from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import ConfigError, Failure, SlideError, SlidemillError, error_line, read_failure


@given(
    message=st.text(),
    kind=st.sampled_from([SlidemillError, SlideError, ConfigError]),
    stage=st.sampled_from([None, "tile"]),
)
def test_an_error_line_is_one_line_and_reads_back(message, kind, stage):
    line = error_line("stitch", kind(message, stage=stage))
    assert len(line.splitlines()) == 1
    expected = Failure(stage or "stitch", kind.__name__, " ".join(message.split()))
    assert read_failure(f"12:00:00 step 1\n{line}\n", "train") == expected


def test_a_bug_is_found_by_the_end_of_its_traceback():
    try:
        int("x")
    except ValueError:
        log = f"12:00:00 step 1\n{traceback.format_exc()}"
    found = read_failure(log, "predict")
    reason = "ValueError: invalid literal for int() with base 10: 'x'"
    assert found == Failure("predict", "ValueError", f"a bug in Slidemill: {reason}; see the log")


def test_output_of_a_library_after_the_error_line_does_not_hide_it():
    log = f"{error_line('stitch', SlidemillError('disk full'))}\nTask was destroyed but it is pending!\n"
    assert read_failure(log, "stitch") == Failure("stitch", "SlidemillError", "disk full")
    log += "Traceback (most recent call last):\nRuntimeError: cannot schedule new futures after shutdown\n"
    assert read_failure(log, "stitch") == Failure("stitch", "SlidemillError", "disk full")


def test_names_of_modules_are_left_out_of_the_class():
    log = "Traceback (most recent call last):\n  ...\ntorch.OutOfMemoryError: 3 GB\n"
    assert read_failure(log, "train").kind == "OutOfMemoryError"


def test_other_logs_have_no_reason():
    assert read_failure("12:00:00 error: tile: x", "tile") is None
    assert read_failure("Killed", "tile") is None
    assert read_failure("", "tile") is None


def test_a_message_is_one_line():
    assert str(SlidemillError("a\nb\t c")) == "a b c"
