"""Of each training, the page shows the held-back images with the lowest Dice."""

import math

import numpy as np
import pytest

from pipeline.base import paths
from pipeline.report.held_back import read_held_back, write_held_back
from pipeline.report.page.render import render
from pipeline.report.pictures import pictures_of_training
from pipeline.settings.schema import Settings
from tests.support.pages import page

SETTINGS = Settings.model_validate({"models": {"unet": {"folds": 2}, "fcn": {"architecture": "plain_fcn"}}})


@pytest.fixture
def trained(in_folder):
    """Ten images that were held back from a fold, one of them without any object."""
    truth = np.zeros((20, 30), np.uint8)
    truth[5:9, 5:9] = 1
    pictures = pictures_of_training(np.ones((1, 20, 30), np.float32), truth, truth)
    scores = {f"plate/{number}": number / 10 for number in range(9)} | {"nothing": math.nan}
    write_held_back(in_folder / paths.HELD_BACK.format(model="unet/fold2"), scores, dict.fromkeys(scores, pictures))
    return pictures


@pytest.mark.parametrize("embedded", [True, False])
def test_the_worst_images_of_each_training_are_shown(in_folder, trained, embedded):
    found = read_held_back(SETTINGS, embedded=embedded)
    assert [(one.training, one.image, one.foreground_dice) for one in found] == [
        ("unet/fold2", f"plate/{number}", number / 10) for number in range(8)
    ]
    urls = found[0].urls
    assert list(urls) == ["image", "truth_outlines", "predicted_outlines"]
    if embedded:
        assert all(url.startswith("data:image/") for url in urls.values())
    else:
        assert {name: (in_folder / "results" / url).read_bytes() for name, url in urls.items()} == trained
    html = render(page([], held_back=found))
    assert html.count("<h3>unet/fold2</h3>") == 1
    assert html.index(urls["image"]) < html.index(urls["truth_outlines"])
    assert "plate/1: 0.100" in html
    assert f"img-src data:{'' if embedded else ' '}" in html


def test_a_project_without_such_pictures_has_no_such_section(in_folder):
    assert read_held_back(SETTINGS, embedded=True) == []
    assert "Held-back" not in render(page([]))
    assert not list(in_folder.iterdir())


def test_images_whose_pictures_were_deleted_are_left_out(in_folder, trained):
    (in_folder / paths.HELD_BACK.format(model="unet/fold2") / "plate/0.image.webp").unlink()
    assert trained
    assert read_held_back(SETTINGS, embedded=True) == []
