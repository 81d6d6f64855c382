"""A measurement is read from a ledger as it was recorded."""

from dataclasses import asdict, replace

import pytest

from pipeline.prediction.measurements import Measurements
from pipeline.project.jobs.ledger import Entry, ledger_path, read_ledger, write_ledger
from tests.support.prediction import MEASURED


@pytest.mark.usefixtures("in_folder")
def test_what_was_recorded_is_read():
    path = ledger_path("predict", "net", "plate/1")
    with write_ledger(path, stage="predict", model="net", batch="plate/1") as writer:
        writer.record("a", Entry(fingerprint="1", found=asdict(MEASURED) | {"weights_sha256": "2"}))
    assert Measurements.from_found(read_ledger(path)["a"].found) == MEASURED


def test_those_of_a_stack_are_sums_and_shares_of_its_planes():
    blended = replace(MEASURED, tile_mismatch=0.1, differing_px=10, compared_px=100)
    other = replace(blended, tile_mismatch=0.5, differing_px=150, compared_px=300, uncertain=None)
    assert Measurements.of_planes([MEASURED]) == MEASURED
    assert Measurements.of_planes([MEASURED] * 2).tile_mismatch is None
    both = Measurements.of_planes([blended, other])
    assert (both.tile_mismatch, both.differing_px, both.compared_px) == (0.4, 160, 400)
    assert (both.pixels, both.wall_s, both.uncertain) == (6_000_000, 4.0, 0.125)  # nothing of glass is uncertain
    assert Measurements.of_planes([other, other]).uncertain is None
