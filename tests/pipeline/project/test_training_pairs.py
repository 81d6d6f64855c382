"""Training pairs follow from names alone."""

import pytest

from pipeline.base.errors import SlidemillError
from pipeline.project.training_pairs import find_pairs
from tests.support.slide_files import touch


def test_pairs_share_their_relative_name(tmp_path):
    touch(tmp_path, "images/field/a.tif", "images/b.png", "labels/field/a.png", "labels/b.tif", "labels/unused.tif")
    assert [pair.name for pair in find_pairs(tmp_path / "images", tmp_path / "labels")] == ["b", "field/a"]


def test_an_image_without_labels_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(SlidemillError, match="no training images in .*images .suffixes"):
        find_pairs(tmp_path / "images", tmp_path / "labels")
    touch(tmp_path, "images/a.tif")
    with pytest.raises(SlidemillError, match=r"a.tif: no label image a.tif or .png in .*labels"):
        find_pairs(tmp_path / "images", tmp_path / "labels")
