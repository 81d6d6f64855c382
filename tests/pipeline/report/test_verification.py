"""The table of verifications has the worst result of each model and ignores outdated verifications."""

from pathlib import Path

import pytest

from pipeline.base.files import write_json
from pipeline.base.paths import VERIFICATION
from pipeline.report.verification import verification_tables

pytestmark = pytest.mark.usefixtures("in_folder")


def check(precision, difference, flips=0, outside=0):
    return {"precision": precision, "max_difference": difference, "flips": flips, "flips_outside_ties": outside}


def prove(model, name, law, *checks, mismatch=None, **more):
    origin = {"provenance": {"sha256": {"weights": "w", "slide": "s"}}}
    verification = {"law": law, "checks": list(checks), "mismatch": mismatch} | origin | more
    write_json(Path(VERIFICATION.format(model=model, sample=name)), verification)


def sample(model, name, weights="w", slide="s"):
    return {"model": model, "sample": name, "weights_sha256": weights, "slide_sha256": slide}


def test_the_worst_of_each_model_is_a_row():
    prove("net", "plate/a", "holds", check("float64", 1e-14), check("float32", 2e-6, flips=3))
    field = [check("float64", 1e-16), check("float32", 2e-7)]
    prove("net", "b", "holds", check("float64", 3e-14), check("float32", 1e-6, flips=1, outside=1), crf=field)
    prove("psp", "b", "does not apply", mismatch=0.02, crf=[])
    samples = [sample("net", "plate/a"), sample("net", "b"), sample("net", "c"), sample("psp", "b")]
    (table,) = verification_tables(samples)
    net, psp = table.rows
    assert net == {
        "model": "net",
        "slides": 2,
        "law": "holds",
        "float64": "3.0e-14",
        "flips": 0,
        "float32": "2.0e-06",
        "flips_outside_ties": 1,
        "crf": "2.0e-07",
        "mismatch": None,
    }
    assert (psp["law"], psp["float64"], psp["flips"], psp["mismatch"]) == ("does not apply", None, None, 0.02)
    assert set(net) == {column.name for column in table.columns}


def test_a_model_with_one_broken_piece_is_broken():
    prove("net", "a", "holds", check("float64", 1e-14))
    prove("net", "b", "broken", check("float64", 1e-2, flips=9))
    (table,) = verification_tables([sample("net", "a"), sample("net", "b")])
    assert (table.rows[0]["law"], table.rows[0]["flips"]) == ("broken", 9)


@pytest.mark.parametrize("other", [{"weights": "x"}, {"slide": "x"}, {"weights": None}])
def test_an_outdated_proof_is_ignored(other):
    prove("net", "a", "holds", check("float64", 1e-14))
    assert verification_tables([sample("net", "a", **other)]) == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"provenance": 3}'])
def test_a_damaged_proof_is_ignored(content):
    path = Path(VERIFICATION.format(model="net", sample="a"))
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert verification_tables([sample("net", "a")]) == []
