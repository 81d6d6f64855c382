"""A measurement is read as it was written."""

from dataclasses import asdict

import pytest

from pipeline.base.errors import SlidemillError
from pipeline.base.files import write_json
from pipeline.prediction.measurements import read_speed
from tests.support.prediction import SPEED


def test_what_was_written_is_read(tmp_path):
    write_json(tmp_path / "batch.json", asdict(SPEED) | {"provenance": {}})
    assert read_speed(tmp_path / "batch.json") == SPEED


def test_a_file_without_a_measurement_is_an_error(tmp_path):
    write_json(tmp_path / "batch.json", {"pixels": 1})
    with pytest.raises(SlidemillError, match=r"batch.json: no 'wall_s' in this measurement"):
        read_speed(tmp_path / "batch.json")
