"""A sample sheet is optional, says which group a sample is of, and is refused in one line where it is wrong."""

import pytest

from pipeline.errors import SlidemillError
from pipeline.sample_sheet import read_groups

SAMPLES = ["001", "a", "b", "plate/c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sample,animal\na,1\n", "no column 'group'; a sample sheet has sample and group"),
        ("sample,group\na,1\nb,\n", "line 3 has no group"),
        ("sample,group\na\n", "line 2 has no group"),
        ("sample,group\na,1\na,2\n", "line 3 names 'a' again"),
        ("sample,group\nc,1\n", "line 2: no slide 'c'"),
        ('sample,group\n"a', "not a readable CSV file"),
    ],
)
def test_a_wrong_sheet_is_one_line(tmp_path, text, message):
    sheet = tmp_path / "samples.csv"
    sheet.write_text(text)
    with pytest.raises(SlidemillError, match=message) as refused:
        read_groups(sheet, SAMPLES)
    assert "\n" not in str(refused.value)


def test_bytes_that_are_no_text_are_one_line(tmp_path):
    (tmp_path / "samples.csv").write_bytes(b"sample,group\n\xff\xfe,1\n")
    with pytest.raises(SlidemillError, match="not a readable CSV file"):
        read_groups(tmp_path / "samples.csv", SAMPLES)


def test_a_sheet_is_optional_and_other_columns_are_left_alone(tmp_path):
    assert read_groups(tmp_path / "none.csv", SAMPLES) == {}
    sheet = tmp_path / "samples.csv"
    sheet.write_text("\ufeffstain,sample,group\nDAPI,001,7\nDAPI,plate/c,7\n", encoding="utf-8")
    assert read_groups(sheet, SAMPLES) == {"001": "7", "plate/c": "7"}
