"""The last line of a failed log can be read back."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SlidemillError, error_line, parse_error_line


@given(message=st.text())
def test_an_error_line_is_one_line_and_reads_back(message):
    line = error_line("stitch", message)
    assert len(line.splitlines()) == 1
    assert parse_error_line(line) == ("stitch", " ".join(message.split()))


def test_other_lines_are_not_errors():
    assert parse_error_line("12:00:00 error: tile: x") is None


def test_a_message_is_one_line():
    assert str(SlidemillError("a\nb\t c")) == "a b c"
