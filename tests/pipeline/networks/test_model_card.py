"""A card states the normalization that its network learned; one that this version does not have is refused."""

import json

import pytest

from pipeline.base.errors import SlidemillError
from pipeline.networks.model_card import read_card
from pipeline.slides.intensity import NORMALIZATION
from tests.support.networks import CARD

EARLIER = {"kind": "percentile", "low_percent": 1.0, "high_percent": 99.8}  # of all pixels of the finest level


def write(path, normalization):
    path.write_text(json.dumps(CARD.to_dict() | {"normalization": normalization}))
    return path


@pytest.mark.parametrize("normalization", [NORMALIZATION, EARLIER])
def test_cards_of_the_finest_level_are_valid(tmp_path, normalization):
    assert read_card(write(tmp_path / "model.json", normalization)).normalization == normalization


@pytest.mark.parametrize(
    "normalization",
    [NORMALIZATION | {"level": 1}, NORMALIZATION | {"windows": 64}, EARLIER | {"high_percent": 99.9}, {}],
)
def test_other_normalizations_are_refused_with_both(tmp_path, normalization):
    with pytest.raises(SlidemillError, match="unknown normalization .*; this version has .*'windows': 1024"):
        read_card(write(tmp_path / "model.json", normalization))
