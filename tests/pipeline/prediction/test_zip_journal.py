"""A zip that was cut off or damaged anywhere is recovered up to the last mark before that."""

import zipfile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.prediction.zip_journal import recover

ENTRIES = {
    "a": b"x" * 50,
    "mark/0": b"1",
    "b": bytes(range(256)),
    "c": b"",
    "mark/1": b"2",
    "d": b"y" * 9,
    "mark/2": b"3",
}


def is_mark(name):
    return name.startswith("mark/")


def write(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in ENTRIES.items():
            archive.writestr(name, content)
    ends = {entry.filename: entry.header_offset for entry in archive.filelist}
    return path.read_bytes(), ends


def marks_before(place, starts):
    """The marks that are complete in the first ``place`` bytes."""
    return [name for name in starts if is_mark(name) and starts[name] + 30 + len(name) + len(ENTRIES[name]) <= place]


def check(path, names, marks):
    expected = list(ENTRIES)[: list(ENTRIES).index(marks[-1]) + 1] if marks else []
    assert names == expected
    if names:
        with zipfile.ZipFile(path, "a") as archive:
            assert archive.namelist() == expected
            assert archive.testzip() is None
            assert all(archive.read(name) == ENTRIES[name] for name in expected)
            archive.writestr("later", b"more")
        with zipfile.ZipFile(path) as archive:
            assert archive.namelist() == [*expected, "later"]
            assert archive.testzip() is None


@given(cut=st.integers(0, 800))
def test_a_zip_that_is_cut_off(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "x.zip"
    content, starts = write(path)
    path.write_bytes(content[:cut])
    check(path, recover(path, is_mark), marks_before(cut, starts))


@example(place=111, flip=128)  # in a name: not ASCII
@example(place=111, flip=ord("m"))  # an empty name for zipfile
@example(place=435, flip=1)  # the name of another entry
@given(place=st.integers(0, 600), flip=st.integers(1, 255))
def test_a_zip_with_a_wrong_byte_is_good_up_to_it(tmp_path_factory, place, flip):
    """Dates and flags are not checked, and no checksum covers a name: a damaged name is another one, but never that of
    two entries.
    """
    path = tmp_path_factory.mktemp("flip") / "x.zip"
    content, starts = write(path)
    damaged = bytearray(content)
    damaged[place % len(content)] ^= flip
    path.write_bytes(damaged)
    names = recover(path, is_mark)
    good = marks_before(place, starts)
    assert len(names) >= (list(ENTRIES).index(good[-1]) + 1 if good else 0)
    if names:
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            assert all(
                archive.read(name) == ENTRIES[name] for name, true in zip(names, ENTRIES, strict=False) if name == true
            )


@pytest.mark.parametrize("content", [None, b"", b"PK", b"no zip at all, but longer than a header is"])
def test_a_file_without_a_mark_is_not_changed(tmp_path, content):
    path = tmp_path / "x.zip"
    if content is not None:
        path.write_bytes(content)
    assert recover(path, is_mark) == []
    assert not path.exists() or path.read_bytes() == content
