"""Why something failed is one line, for a user's mistake as for a bug."""

import pickle

from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import ConfigError, Failure, SlideError, SlidemillError, Stopped, error_line, failure_of


@given(
    message=st.text(),
    kind=st.sampled_from([SlidemillError, SlideError, ConfigError]),
    stage=st.sampled_from([None, "tile"]),
)
def test_a_mistake_is_one_line_and_survives_the_way_between_processes(message, kind, stage):
    error = pickle.loads(pickle.dumps(kind(message, stage=stage)))
    found = failure_of("stitch", error, "logs/a.log")
    assert found == Failure(stage or "stitch", kind.__name__, " ".join(message.split()), "logs/a.log")
    line = error_line("stitch", error)
    assert len(line.splitlines()) == 1
    assert line == f"error: {found.stage}: {found.message} [{found.error_class}]"


def test_a_bug_says_where_to_look():
    found = failure_of("predict", ValueError("x\ny"), "logs/a.log")
    assert found == Failure(
        "predict", "ValueError", r"a bug in Slidemill: ValueError('x\ny'); see the log", "logs/a.log"
    )


def test_what_fails_while_a_signal_is_handled_has_the_signal_as_its_reason():
    error = OSError("clean-up")
    error.__context__ = Stopped("SIGTERM")
    assert failure_of("train", error).error_class == "Stopped"


def test_a_message_is_one_line():
    assert str(SlidemillError("a\nb\t c")) == "a b c"
