"""A run says why it makes something again, in a sentence."""

from pathlib import Path

import pytest

from pipeline.base import paths
from pipeline.project.jobs.announced import announced
from tests.support.pretended_run import NET, do, lay_out, look, replace
from tests.support.slide_files import touch

WHY = {
    "nothing": (lambda: None, {}, []),
    "a longer training": (
        lambda: None,
        {"models": {"net": {"max_steps": 90}}},
        ["train net again: max_steps 60 -> 90 (about 28 s)", "segment 3 samples with net"],
    ),
    "a label": (
        lambda: replace("data/training/labels/2.tif", 10**9),
        {},
        ["train net again: label data/training/labels/2.tif changed (about 22 s)", "segment 3 samples with net"],
    ),
    "an image more": (
        lambda: touch(Path("data/training"), "images/5.tif", "labels/5.tif"),
        {},
        [
            "train net again: held back 4 -> 5, image data/training/images/5.tif is new, "
            "label data/training/labels/5.tif is new (about 22 s)",
            "segment 3 samples with net",
        ],
    ),
    "other classes": (
        lambda: None,
        {"classes": ["background", "cell"]},
        [
            'train net again: classes ["background", "object"] -> ["background", "cell"] (about 22 s)',
            "segment 3 samples with net",
        ],
    ),
    "masks": (
        lambda: None,
        {"masks": {"instances": "none"}},
        ['make the masks of 3 samples with net again: masks.instances "components" -> "none"'],
    ),
    "metrics": (
        lambda: None,
        {"metrics": {"tolerance_px": 3.0}},
        ["evaluate 1 sample with net again: metrics.tolerance_px 2.0 -> 3.0"],
    ),
    "a slide that is new, and one that changed": (
        lambda: (touch(Path("data/slides"), "plate/new.tif"), replace("data/slides/c.tif", 10**9)),
        {},
        ["segment 1 sample with net", "segment 1 sample with net again: slide changed"],
    ),
    "a reference": (
        lambda: replace("data/references/plate/a.tif", 10**9),
        {},
        ["evaluate 1 sample with net again: reference changed"],
    ),
    "a network": (
        lambda: Path(paths.NETWORK.format(model="net")).unlink(),
        {},
        ["train net again: a file of it is missing or was changed (about 22 s)", "segment 3 samples with net"],
    ),
    "a mask": (
        lambda: Path(paths.MASK.format(model="net", sample="c")).unlink(),
        {},
        ["make the masks of 1 sample with net again: a file of it is missing or was changed"],
    ),
    "masks that need probabilities": (
        lambda: None,
        {"masks": {"instances": "watershed"}},
        [
            "predict 3 samples with net again: masks or prediction.probabilities now need probabilities, "
            "which were not kept"
        ],
    ),
}


@pytest.fixture(autouse=True)
def project(in_folder):
    lay_out(in_folder)


@pytest.mark.parametrize("change", WHY)
def test_a_run_says_why_it_makes_something_again(change):
    do(**NET)
    act, settings, lines = WHY[change]
    act()
    found = announced(look(**NET | settings))
    assert [line.strip() for line in found[1:]] == lines
    assert not found or "to do" in found[0]


def test_a_new_project_says_what_it_will_make():
    lines = announced(look(**NET))
    assert lines[0].startswith("3 samples, network net: 11 jobs to do, of 2 batches; about ")
    assert lines[1:] == ["  train net (about 22 s)", "  segment 3 samples with net"]
