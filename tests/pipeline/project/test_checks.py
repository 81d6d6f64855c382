"""A network of the user that cannot serve is named before the first job."""

import json
from pathlib import Path

import pytest

from pipeline.base.errors import ConfigError, SlidemillError
from pipeline.project.checks import check_files, check_masks, check_measurements, unseen_views
from pipeline.settings.schema import Settings

CHOSEN = Settings(classes=["background", "nucleus"], models={"given": {"checkpoint": "given/model.safetensors"}})


@pytest.fixture(autouse=True)
def network(in_folder):
    (in_folder / "given").mkdir()
    (in_folder / "given/model.safetensors").touch()
    return in_folder


@pytest.mark.parametrize("file", ["model.safetensors", "model.json"])
def test_a_network_that_is_not_there(file):
    Path("given/model.json").touch()
    Path("given", file).unlink()
    with pytest.raises(SlidemillError, match=rf"^models.given.checkpoint: there is no given/{file}; correct it"):
        check_files(CHOSEN)


@pytest.mark.parametrize("classes", [["background", "cell"], ["nucleus", "background"], ["background"]])
def test_a_network_of_other_classes(classes):
    Path("given/model.json").write_text(json.dumps({"classes": classes}))
    with pytest.raises(SlidemillError, match=r"its classes are \['.*list the same in the same"):
        check_files(CHOSEN)


@pytest.mark.parametrize("content", ['{"classes": ["background", "nucleus"]}', '{"classes": [', "[]", "{}"])
def test_a_network_of_these_classes_and_a_damaged_card_wait_for_their_job(content):
    Path("given/model.json").write_text(content)
    check_files(CHOSEN)


def test_a_threshold_for_a_channel_that_no_slide_has():
    settings = Settings(image={"channels": [0, "DAPI"]}, measurements={"positive": {"Ki67": 1.0}})
    for slides in ([None, None], [None, ("DAPI", 2)]):
        with pytest.raises(SlidemillError, match=r"^measurements.positive: no channel 'Ki67'; measured are 0, DAPI$"):
            check_measurements(settings, slides)
    check_measurements(settings, [None, ("DAPI", "Ki67")])  # a slide without it fails alone
    check_measurements(settings, [])


def test_a_threshold_for_a_stain_that_is_not_measured():
    settings = Settings(measurements={"positive": {"DAB": 0.1}})
    with pytest.raises(SlidemillError, match=r"no channel 'DAB'; measured are 0; stains need `stains` in measurements"):
        check_measurements(settings, [None])
    check_measurements(Settings(measurements={"positive": {"DAB": 0.1}, "groups": ["stains"]}), [None])


@pytest.mark.parametrize(
    ("augmentation", "symmetries", "is_doubtful"),
    [
        ({}, "all", False),
        ({"flip": False}, "none", False),
        ({"flip": False}, "left_right", True),
        ({"flip": "left_right"}, "left_right", False),
        ({"flip": "left_right"}, "up_down", True),
        ({"flip": "left_right"}, "flips", True),
        ({"probability": {"flip": 0}}, "flips", True),
    ],
)
def test_mirror_images_that_training_does_not_show_are_doubtful_in_an_ensemble(augmentation, symmetries, is_doubtful):
    models = {"seen": {}, "other": {"augmentation": augmentation}, "given": {"checkpoint": "x"}}
    ensembles = {"both": {"members": [*models], "symmetries": symmetries}}
    lines = unseen_views(Settings(models=models, ensembles=ensembles))
    assert [line.partition(":")[0] for line in lines] == ["ensembles.both.symmetries"] * is_doubtful
    assert all("the training of other does not show" in line for line in lines)


@pytest.mark.parametrize(
    ("model", "card", "advice"),
    [
        ({}, {}, "set heads: {distance: true}, or masks.instances to auto"),
        ({"heads": {"boundary": True}}, {}, "set heads: {distance: true}, or masks.instances to auto"),
        ({"heads": {"distance": True}}, {}, None),
        ({"checkpoint": "given/model.safetensors"}, {"heads": []}, "set masks.instances to auto"),
        ({"checkpoint": "given/model.safetensors"}, {"heads": ["distance"]}, None),
        ({"checkpoint": "given/model.safetensors"}, {}, None),  # `predict` says what is wrong with it
    ],
)
def test_objects_by_a_distance_that_no_network_learns_are_refused_before_the_training(model, card, advice):
    Path("given/model.json").write_text(json.dumps(card))
    settings = {"models": {"net": model}}
    check_masks(Settings.model_validate(settings))
    asked = Settings.model_validate(settings | {"masks": {"instances": "distance"}})
    if advice is None:
        check_masks(asked)
        return
    with pytest.raises(ConfigError) as error:
        check_masks(asked)
    assert str(error.value) == f"models.net: masks.instances 'distance' needs the head 'distance'; {advice}"
