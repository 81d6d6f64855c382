"""A sample sheet is optional, has the groups of samples, and is refused in one line if it is wrong."""

import pytest

from pipeline.base.errors import SlidemillError
from pipeline.project.sample_sheet import SheetRow, read_groups, read_rows, read_unknown

SAMPLES = ["001", "a", "b", "plate/c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "sample,animal\na,1\n",
            "its columns are 'sample', 'animal'; it needs sample and at least one of group, batch",
        ),
        ("group\n1\n", "its columns are 'group'; it needs sample and"),
        ("", "its columns are missing; it needs sample and"),
        ("sample;group\na;1\n", "its columns are separated by semicolons; save it with commas"),
        ("sample\tgroup\na\t1\n", "its columns are separated by tabs; save it with commas"),
        ("Sample,Group\na,1\n", "a column is 'Sample'; write it 'sample'"),
        ("sample, group\na,1\n", "a column is ' group'; write it 'group'"),
        ("sample,group,pixelsize_um\na,1,2\n", "a column is 'pixelsize_um'; write it 'pixel_size_um', or rename it"),
        ("sample,group,group\na,1,2\n", "the column 'group' is there 2 times; remove one"),
        ("sample,group\na,1,2\n", "line 2 has more cells than the first line"),
        ("sample,group\na,1\nb,\n", "line 3 has no group"),
        ("sample,group\na\n", "line 2 has no group"),
        ("sample,group\na,1\na,2\n", "line 3 names 'a' again"),
        ('sample,group\n"a', "not a readable CSV file"),
        ("sample,group\n\udcff\udcfe,1\n", "not UTF-8 text; save it as CSV in UTF-8"),  # bytes that are no text
    ],
)
def test_a_wrong_sheet_is_one_line(tmp_path, text, message):
    sheet = tmp_path / "samples.csv"
    sheet.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(SlidemillError, match=message):
        read_groups(sheet, SAMPLES)


def test_a_sheet_in_utf_16_is_refused(tmp_path):
    (tmp_path / "samples.csv").write_text("sample,group\na,1\n", encoding="utf-16")
    with pytest.raises(SlidemillError, match="not UTF-8 text; save it as CSV in UTF-8"):
        read_groups(tmp_path / "samples.csv", SAMPLES)


def test_names_may_have_another_unicode_form_and_a_suffix(tmp_path):
    composed, decomposed = "M\u00fcller", "Mu\u0308ller"
    sheet = tmp_path / "samples.csv"
    sheet.write_text(f"sample,group\n{composed},1\nb.ome.tif,2\n", encoding="utf-8")
    assert read_groups(sheet, [decomposed, "b", "c"]) == {decomposed: "1", "b": "2"}
    assert read_unknown(sheet, [decomposed, "b"]) == []
    sheet.write_text("sample,group\nb.tif,2\nb,1\n", encoding="utf-8")
    assert read_groups(sheet, ["b"]) == {"b": "1"}


def test_a_sheet_about_other_files_is_an_error(tmp_path):
    sheet = tmp_path / "samples.csv"
    sheet.write_text("sample,group\nPlate/C,1\nx,2\n")
    with pytest.raises(SlidemillError, match="no line is about one of the 4 images, such as '001'; .* 'plate/c'; it"):
        read_unknown(sheet, SAMPLES)
    assert read_groups(sheet, SAMPLES) == {}


def test_lines_about_missing_slides_are_named_and_ignored(tmp_path):
    sheet = tmp_path / "samples.csv"
    sheet.write_text("sample,group,pixel_size_um\ngone,1,0.5\na,2,0.25\nb,3,\nmisspelt,,x\n")
    assert read_groups(sheet, SAMPLES) == {"a": "2", "b": "3"}
    assert read_rows(sheet, SAMPLES, channels=1) == {"a": SheetRow(pixel_size_um=0.25), "b": SheetRow()}
    assert read_unknown(sheet, SAMPLES) == [(2, "gone"), (5, "misspelt")]
    assert read_unknown(tmp_path / "none.csv", SAMPLES) == []


def test_a_sheet_is_optional_and_other_columns_are_left_alone(tmp_path):
    assert read_groups(tmp_path / "none.csv", SAMPLES) == {}
    sheet = tmp_path / "samples.csv"
    sheet.write_text("\ufeffstain,sample,group\nDAPI,001,7\nDAPI,plate/c,7\n", encoding="utf-8")
    assert read_groups(sheet, SAMPLES) == {"001": "7", "plate/c": "7"}


def rows_of(tmp_path, text, *, channels=1):
    (tmp_path / "samples.csv").write_text(text)
    return read_rows(tmp_path / "samples.csv", SAMPLES, channels=channels)


def test_a_sheet_can_hold_pixel_sizes_with_or_without_groups(tmp_path):
    found = rows_of(tmp_path, "sample,pixel_size_um\na,0.5\nb,\nplate/c, 1e-1 \n")
    assert {name: one.pixel_size_um for name, one in found.items()} == {"a": 0.5, "b": None, "plate/c": 0.1}
    assert read_groups(tmp_path / "samples.csv", SAMPLES) == {}
    assert rows_of(tmp_path, "sample,group,pixel_size_um\na,x,2\n") == {"a": SheetRow(pixel_size_um=2.0)}
    assert read_groups(tmp_path / "samples.csv", SAMPLES) == {"a": "x"}
    assert read_rows(tmp_path / "none.csv", SAMPLES, channels=1) == {}


def test_a_sheet_can_hold_batches_and_channels(tmp_path):
    text = "sample,batch,channels\na,night 1,\nb,,DAPI; 2\nplate/c,x/y, 0;1\ngone,..,7\n"
    assert rows_of(tmp_path, text, channels=2) == {
        "a": SheetRow(batch="night 1"),
        "b": SheetRow(channels=("DAPI", 2)),
        "plate/c": SheetRow(batch="x/y", channels=(0, 1)),
    }


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        *[("pixel_size_um", cell, "must be a positive number, got ") for cell in ("0", "-1", "nan", "inf", "0.5 um")],
        *[("batch", cell, "must be a valid folder name, got ") for cell in ("..", "/a", "a//b", "{a}", "x" * 201)],
        *[
            ("channels", cell, "must be 2 numbers or names \\(as many as in image.channels\\) separated by")
            for cell in ("0", "0;1;2", "0;", ";")
        ],
    ],
)
def test_a_cell_that_does_not_hold_what_its_column_does_is_one_line(tmp_path, column, cell, message):
    with pytest.raises(SlidemillError, match=f"line 2: {column} {message}"):
        rows_of(tmp_path, f"sample,{column}\na,{cell}\n", channels=2)
