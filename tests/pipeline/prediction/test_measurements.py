"""A measurement is read from a ledger as it was recorded."""

from dataclasses import asdict

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
