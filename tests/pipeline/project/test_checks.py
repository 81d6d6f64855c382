"""A network of the user that cannot serve is named before the first job."""

import json
from pathlib import Path

import pytest

from pipeline.base.errors import SlidemillError
from pipeline.project.checks import check_files
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
