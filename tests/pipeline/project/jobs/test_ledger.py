"""A ledger says what became of every sample; an interrupted job loses nothing that it had recorded."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import Failure
from pipeline.project.jobs.ledger import (
    Entry,
    has_failed,
    ledger_path,
    network_ledger_path,
    read_ledger,
    was_interrupted,
    write_ledger,
)

NUMBERS = st.dictionaries(st.text(), st.one_of(st.none(), st.integers(-9, 9), st.floats(allow_nan=False, width=16)))
ENTRIES = st.builds(
    Entry,
    fingerprint=st.text(),
    files=st.lists(st.text()),
    found=NUMBERS.filter(lambda found: all(abs(value or 0) < 1e9 for value in found.values())),
    seconds=st.floats(0, 1e6),
    failure=st.one_of(st.none(), st.builds(Failure, st.text(), st.text(), st.text(), st.text())),
)


def write(path, entries):
    with write_ledger(path, stage="tile", model="net", batch="x/0001") as writer:
        for name, entry in entries.items():
            writer.record(name, entry)
    return writer.entries


@given(st.dictionaries(st.text(), ENTRIES))
def test_what_is_recorded_reads_back(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("ledger") / "a.json"
    assert write(path, entries) == read_ledger(path)
    assert not was_interrupted(path)


@given(st.dictionaries(st.text(), ENTRIES, min_size=1), st.data())
def test_an_interrupted_job_keeps_what_it_recorded_wherever_it_was_cut_off(tmp_path_factory, entries, data):
    path = tmp_path_factory.mktemp("ledger") / "a.json"
    with pytest.raises(KeyboardInterrupt), write_ledger(path, stage="tile", model="net") as writer:
        for name, entry in entries.items():
            writer.record(name, entry)
        recorded = list(writer.entries.items())
        raise KeyboardInterrupt
    assert was_interrupted(path)
    journal = path.parent / ".partial-a.json" / "a.jsonl"
    text = journal.read_bytes()
    cut = data.draw(st.integers(0, len(text)))
    journal.write_bytes(text[:cut])
    whole = text[:cut].count(b"\n") + (cut > 0 and text[cut : cut + 1] == b"\n")
    with write_ledger(path, stage="tile", model="net") as writer:
        assert writer.known == dict(recorded[:whole])


def test_a_journal_is_newer_than_the_ledger_before(tmp_path):
    path = tmp_path / "a.json"
    write(path, {"x": Entry(fingerprint="1"), "y": Entry(fingerprint="1")})
    with pytest.raises(RuntimeError), write_ledger(path, stage="tile", model="net") as writer:
        writer.record("x", Entry(fingerprint="2"))
        raise RuntimeError
    assert {name: entry.fingerprint for name, entry in read_ledger(path).items()} == {"x": "1", "y": "1"}
    with write_ledger(path, stage="tile", model="net") as writer:
        assert {name: entry.fingerprint for name, entry in writer.known.items()} == {"x": "2", "y": "1"}
        writer.keep("x")
    assert {name: entry.fingerprint for name, entry in read_ledger(path).items()} == {"x": "2"}


def test_an_entry_serves_only_under_its_fingerprint_and_with_its_files(tmp_path):
    made = tmp_path / "made"
    made.write_text("abc")
    path = tmp_path / "a.json"
    write(path, {"x": Entry(fingerprint="1", files=[str(made)])})
    entry = read_ledger(path)["x"]
    assert entry.serves("1")
    assert not entry.serves("2")
    assert not Entry(fingerprint="1", failure=Failure("tile", "SlideError", "empty")).serves("1")
    saved_s = made.stat().st_mtime
    os.utime(made, (saved_s, saved_s + 2))  # a file server set the time when it saved the file
    assert entry.serves("1")
    for content, time_s in (("abcd", saved_s), ("xyz", saved_s + 60), ("xyz", 10**9)):
        made.write_text(content)
        os.utime(made, (time_s, time_s))
        assert not entry.serves("1")
    made.unlink()
    assert not entry.serves("1")


@pytest.mark.parametrize("content", ["{", "[]", '{"samples": []}', '{"samples": {"a": {}}}', '{"samples": {"a": 1}}'])
def test_what_is_no_ledger_has_no_entries(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    assert read_ledger(tmp_path / "a.json") == read_ledger(tmp_path / "none.json") == {}


def test_a_ledger_is_read_by_people_too(tmp_path):
    write(
        tmp_path / "a.json", {"µ": Entry(fingerprint="1"), "a": Entry(fingerprint="2", failure=Failure("t", "k", "m"))}
    )
    content = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert (content["stage"], content["model"], content["batch"]) == ("tile", "net", "x/0001")
    assert [(name, entry["status"]) for name, entry in content["samples"].items()] == [("a", "failed"), ("µ", "done")]
    assert content["samples"]["a"]["failure"] == {"stage": "t", "error_class": "k", "message": "m", "log": ""}


@pytest.mark.parametrize(
    ("entries", "failed"),
    [
        ({"net": Entry(fingerprint="1")}, False),
        ({"net": Entry(fingerprint="1", failure=Failure("t", "k", "m"))}, True),
        ({}, True),
    ],
    ids=["done", "failed", "one before it failed"],
)
@pytest.mark.usefixtures("in_folder")
def test_a_network_has_failed_if_it_or_what_it_needs_did(entries, failed):
    assert not has_failed("train", "net")  # it has not begun
    write(network_ledger_path("train", "net"), entries)
    assert has_failed("train", "net") == failed
    assert str(ledger_path("tile", "net", "x/0001")) == "results/ledgers/tile/net/x/0001.json"
