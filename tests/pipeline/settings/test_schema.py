"""A configuration matches the schema, or one line names the key that does not."""

import json
from typing import get_args

import pytest

import models
from models.ensemble import Symmetries
from pipeline.__main__ import STAGES
from pipeline.base.errors import ConfigError
from pipeline.project.sample_sheet import SheetRow
from pipeline.project.stage_settings import stage_config, view_of
from pipeline.settings.ensembles import EnsembleConfig
from pipeline.settings.schema import ImageConfig, Settings, parse_settings
from pipeline.settings.stage_sections import ObjectsConfig, TileConfig, parse_stage_config

CONFIGURED = [stage for stage in STAGES if stage != "finish"]


def test_an_empty_configuration_is_the_defaults():
    assert parse_settings({}, source="config.yaml") == Settings()


CELL = {"compartments": {"cell": {"nucleus": "object", "expand_um": 2.0}}}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"slide": "x"}, r"config.yaml: unknown key 'slide' \(value 'x'\); known keys here: slides, references"),
        ({"tiling": {"tile": 5}}, r"unknown key 'tiling.tile' \(value 5\); known keys here: memory_mb, tile_px"),
        (
            {"models": {"a": {"loss": {"hinge": 1}}}},
            r"unknown key 'models.a.loss.hinge' \(value 1\); known keys here: cross_e",
        ),
        ({"tiling": {"tile_px": 8}}, "tiling.tile_px: Input should be greater than or equal to 16, got 8"),
        ({"tiling": {"tile_px": "512"}}, "tiling.tile_px: Input should be a valid integer, got '512'"),
        ({"training": {"kind": "boxes"}}, "training.kind: Input should be 'instances' or 'classes', got 'boxes'"),
        ({"classes": ["a", "b", "c"]}, "training.kind 'instances' means two classes, got 3"),
        ({"classes": ["a", "a"]}, "classes must differ"),
        ({"training": {"values": [0, 1]}}, "training.values belongs to training.kind 'classes'"),
        ({"training": {"kind": "classes", "values": [0]}}, "must be 2 different values, one per class"),
        ({"models": {"a/b": {}}}, "models.a/b"),
        ({"models": {"a" * 201: {}}}, "at most 200 characters"),
        *[
            ({key: value}, f"{key}: must be the path of a file or folder, got")
            for key in ("slides", "references", "samples")
            for value in ("", " ", "a\0b")
        ],
        ({"training": {"images": ""}}, "training.images: must be the path of a file or folder, got ''"),
        ({"models": {"a": {"checkpoint": ""}}}, "models.a.checkpoint: must be the path of a file or folder, got ''"),
        ({"models": {"a": {"architecture": "unett"}}}, "unknown architecture 'unett'; available: attention_unet"),
        (
            {"models": {"a": {"loss": {"cross_entropy": 0, "dice": 0}}}},
            "all of cross_entropy, dice, .*, cl_dice are 0; at least one",
        ),
        ({"models": {"a": {"learning_rate": float("nan")}}}, "learning_rate: Input should be"),
        ({"models": {"a": {"augmentation": {"probability": {"rotate": 0.5}}}}}, "probability"),
        ({"models": {"a": {"augmentation": {"probability": {"noise": 1.5}}}}}, "probability"),
        ({"ensembles": {"unet": {"members": ["unet"]}}}, "ensembles.unet: there is a model of this name"),
        ({"ensembles": {"both": {"members": ["fcn"]}}}, "ensembles.both.members: no model 'fcn'; there are unet"),
        ({"ensembles": {"both": {"members": []}}}, "at least 1 item"),
        ({"ensembles": {"both": {"members": ["unet"], "scales": [3]}}}, "a scale is 0.25, 0.5, 1, 2 or 4, got 3"),
        ({"ensembles": {"both": {"members": ["unet", "unet"]}}}, "unet is there twice"),
        ({"ensembles": {"both": {"members": ["unet"], "scales": [2, 0.5, 2]}}}, "2.0 is there twice"),
        ({"models": {"a": {"pretrained": "b"}, "b": {"pretrained": "a"}}}, "a.pretrained: a <- b <- a is a circle"),
        ({"models": {"a": {"encoder_rate": 2.0}}}, "models.a.encoder_rate: "),
        ({"models": {"a": {"folds": 1}}}, "models.a.folds: "),
        ({"models": {"a": {"folds": 2, "checkpoint": "x"}}}, "models.a: checkpoint replaces training, and folds are "),
        (
            {"models": {"a": {"folds": 2, "pretrained": "b"}, "b": {}}},
            "a.pretrained: b has folds: null, a 2; it would have learned from images that are held back",
        ),
        ({"ensembles": {"both": {"members": ["unet/fold1"]}}}, "no model 'unet/fold1'; there are unet"),
        *[
            ({"measurements": {"score_compartment": {"a": place}} | own}, f"config.yaml: measurements.{message}$")
            for place, own, message in (
                ("cell", {}, "score_compartment: 'a' has no threshold in measurements.positive"),
                ("cell", {"positive": {"a": 1.0}}, "score_compartment.a: no compartment 'cell'; there are none"),
                ("ring", {"positive": {"a": 1.0}, **CELL}, "score_compartment.a: .* 'ring'; there are cell, cell_ring"),
            )
        ],
        ({"image": {"level": 1, "pixel_size_um": 0.5}}, "level and pixel_size_um both choose the resolution"),
        *[
            ({"image": {key: value}}, f"image.{key}")
            for key, value in (("channels", []), ("z", "mean"), ("z", -1), ("pixel_size_um", 0))
        ],
    ],
)
def test_a_mistake_is_one_line_with_key_value_and_limit(config, message):
    with pytest.raises(ConfigError, match=message):
        parse_settings(config, source="config.yaml")


@pytest.mark.parametrize("stage", CONFIGURED)
def test_a_stage_can_read_its_part_of_the_configuration(stage):
    text = stage_config(Settings(), stage, "unet")
    assert json.loads(text)
    assert stage_config(Settings(), stage, "unet") == text


def test_objects_gets_classes_and_channels():
    settings = Settings(classes=["background", "cell"], image=ImageConfig(channels=[2, 0]))
    config = parse_stage_config(ObjectsConfig, stage_config(settings, "objects"))
    assert (config.classes, config.image.channels) == (["background", "cell"], [2, 0])


def test_a_changed_setting_changes_only_the_stages_that_use_it():
    """So that a changed setting runs again exactly the rules that use it."""
    before = parse_settings({"models": {"a": {}, "b": {}}}, source="")
    after = parse_settings(
        {"models": {"a": {"learning_rate": 0.1}, "b": {}}, "masks": {"instances": "none"}}, source=""
    )
    changed = {
        (stage, model)
        for stage in CONFIGURED
        for model in ("a", "b")
        if stage_config(before, stage, model) != stage_config(after, stage, model)
    }
    everywhere = {(stage, model) for stage in ("predict", "stitch", "validate", "report") for model in ("a", "b")}
    assert changed == {("train", "a")} | everywhere


def test_the_sample_sheet_overrides_how_slides_are_read():
    image = ImageConfig(channels=[0, 1], fallback_pixel_size_um=2.0)
    row = SheetRow(pixel_size_um=0.5, channels=("DAPI", 2))
    assert view_of(image, SheetRow()) == image
    assert view_of(image, row) == ImageConfig(
        channels=["DAPI", 2], fallback_pixel_size_um=2.0, stated_pixel_size_um=0.5
    )


def test_an_unknown_key_of_a_stage_is_named():
    with pytest.raises(ConfigError, match="--config: unknown key 'til'"):
        parse_stage_config(TileConfig, '{"image": {}, "tile_px": 64, "mirror_px": 16, "skip_glass": true, "til": 1}')


def test_a_training_that_starts_from_another_one_gets_its_path():
    settings = parse_settings({"models": {"a": {}, "b": {"pretrained": "a"}}}, source="config.yaml")
    assert '"pretrained":"results/models/a/model.safetensors"' in stage_config(settings, "train", "b")
    assert settings.networks == {"a": None, "b": None}


def test_any_model_of_the_library_is_accepted_by_name():
    settings = parse_settings({"models": {"a": {"architecture": "smp/unetplusplus/resnet34"}}}, source="config.yaml")
    assert settings.models["a"].architecture == "smp/unetplusplus/resnet34"


@pytest.mark.parametrize("folds", [None, 2])
def test_a_training_does_not_start_from_what_it_writes(folds):
    own, training = "results/models/../models/a/model.safetensors", "a/fold1" if folds else "a"
    settings = parse_settings({"models": {"a": {"pretrained": own, "folds": folds}}}, source="")
    with pytest.raises(ConfigError, match=rf"a.pretrained: .* this training writes; .*/{training}/kept/\*/model"):
        stage_config(settings, "train", training)
    kept = parse_settings({"models": {"a": {"pretrained": "results/models/a/kept/1/model.safetensors"}}}, source="")
    assert "kept/1" in stage_config(kept, "train", "a")


def test_a_model_in_folds_is_the_average_of_its_trainings():
    settings = parse_settings({"models": {"a": {"folds": 2}, "b": {"folds": 2, "pretrained": "a"}}}, source="")
    assert list(settings.trainings) == ["a/fold1", "a/fold2", "b/fold1", "b/fold2"]
    assert settings.averages["b"].members == ["b/fold1", "b/fold2"]
    config = json.loads(stage_config(settings, "train", "b/fold2"))
    assert config["split"] == {"samples": "config/training.csv", "validation": None, "folds": 2, "fold": 2}
    assert config["model"]["pretrained"] == "results/models/a/fold2/model.safetensors"
    config = json.loads(stage_config(settings, "combine", "a"))
    assert (config["ensemble"]["members"], config["comparison"]) == (["a/fold1", "a/fold2"], None)


@pytest.mark.parametrize(
    ("members", "is_compared"),
    [(["a", "b"], True), (["a"], True), (["a", "given"], False), (["a", "folded"], False), (["given"], False)],
)
def test_an_ensemble_is_compared_where_no_member_learned(members, is_compared):
    """The images that a model holds back are learned from in its folds, and perhaps by a network from elsewhere."""
    networks = {"a": {}, "b": {}, "given": {"checkpoint": "x"}, "folded": {"folds": 2}}
    settings = parse_settings({"models": networks, "ensembles": {"both": {"members": members}}}, source="")
    config = json.loads(stage_config(settings, "combine", "both"))
    split = json.loads(stage_config(settings, "train", "a"))["split"]
    assert (config["comparison"] or {}).get("split") == (split if is_compared else None)


@pytest.mark.parametrize("symmetries", get_args(Symmetries))
def test_an_ensemble_knows_how_many_pixels_go_through_its_networks(symmetries):
    config = EnsembleConfig(members=["a", "b"], scales=[1, 0.5], symmetries=symmetries)
    member = {"architecture": "unet", "options": {"width": 2, "depth": 1}}
    options = {"members": [member] * 2, "scales": config.scales, "symmetries": symmetries}
    network = models.build("ensemble", in_channels=1, num_classes=2, options=options)
    assert config.passes == sum(scale**2 for _, scale, *_ in network.views)


def test_folds_do_not_change_the_weight_maps():
    one, five = (parse_settings({"models": {"a": model}}, source="") for model in ({}, {"folds": 5}))
    assert stage_config(one, "weigh", "a") == stage_config(five, "weigh", "a")


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), ("2E-4", 0.0002), ("1.e3", 1000.0)])
def test_powers_of_ten_without_a_point_are_numbers(text, value):
    """As Snakemake gives them: YAML 1.1 reads them as text."""
    model = {"learning_rate": text, "optimizer": {"weight_decay": text}, "options": {"rate": text}}
    read = parse_settings({"models": {"net": model}, "classes": ["background", "1e3"]}, source="")
    network = read.models["net"]
    assert network.learning_rate == network.optimizer.weight_decay == network.options["rate"] == value
    assert read.classes[1] == "1e3"


def test_other_text_is_no_number():
    with pytest.raises(ConfigError, match="learning_rate"):
        parse_settings({"models": {"net": {"learning_rate": "fast"}}}, source="")
