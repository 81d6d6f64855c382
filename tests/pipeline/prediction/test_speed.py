"""A measurement is read as it was written."""

import pytest

from pipeline.base.errors import SlidemillError
from pipeline.base.files import write_json
from pipeline.prediction.speed import Speed, read_speed

SPEED = Speed(
    pixels=6300,
    wall_s=0.5,
    network_s=0.4,
    reading_s=0.05,
    writing_s=0.01,
    differing_px=1,
    compared_px=9,
    device="cpu",
    precision="float32",
    threads=2,
    uncertain={"a": 0.25},
    mismatch={},
)


def test_what_was_written_is_read(tmp_path):
    write_json(tmp_path / "batch.json", SPEED.to_dict() | {"provenance": {}})
    assert read_speed(tmp_path / "batch.json") == SPEED


def test_a_file_without_a_measurement_is_named(tmp_path):
    write_json(tmp_path / "batch.json", {"pixels": 1})
    with pytest.raises(SlidemillError, match=r"batch.json: no 'wall_s' in this measurement"):
        read_speed(tmp_path / "batch.json")
