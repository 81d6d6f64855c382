"""What is wrong with a network of the configuration is one line before the first job."""

import json
import os

import pytest

from pipeline.__main__ import main
from pipeline.base.errors import SlidemillError
from pipeline.project.checks import check_networks
from pipeline.settings.schema import parse_settings


def check(**model):
    return main(["check", "--config", json.dumps({"models": {"net": model}})])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"options": {"widht": 32}}, "models.net: model 'unet' has no option 'widht'; available: "),
        ({"options": {"width": 0}}, "models.net: "),
        ({"options": {"width": "wide"}}, "models.net: "),
        ({"architecture": "segnet", "options": {"depth": "auto"}}, "models.net: 'segnet' has no option 'depth'"),
        ({"architecture": "smp/unet/resnet99"}, "models.net: smp/unet/resnet99: "),
    ],
)
def test_an_option_or_encoder_that_there_is_not_is_refused(capsys, model, message):
    assert check(**model) == 1
    assert f"error: check: {message}" in capsys.readouterr().err


def test_what_can_be_built_is_accepted():
    assert check(options={"width": 4, "depth": "auto"}) == 0
    assert check(checkpoint="none", options={"widht": 1}) == 0  # its card says what it is


def test_a_process_of_its_own_says_the_same_line():
    settings = parse_settings({"models": {"net": {"options": {"widht": 32}}}}, source="")
    with pytest.raises(SlidemillError, match="^models.net: model 'unet' has no option 'widht'.*; correct its arch"):
        check_networks(settings.model_dump_json(), dict(os.environ))
