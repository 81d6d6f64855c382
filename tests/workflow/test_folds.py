"""Cross-validation: one network per fold, measured on the images held back, and their ensemble."""

import numpy as np
import pandas as pd
import pytest
import tifffile

from pipeline.base.files import read_json
from tests.support.workflow import Project

NETWORK = {"options": {"width": 2, "depth": 2}, "patch_px": 32, "batch_size": 2, "max_steps": 4, "validate_every": 2}
UNKNOWN = 9  # label of pixels that are not annotated
FOLDED = {"models": {"net": NETWORK | {"folds": 2}}, "training": {"ignored": UNKNOWN}}
GROUPS = {"a": "mouse", "b": "rat", "c": "mouse", "d": "rat"}
HELD_BACK = {1: ["a", "c"], 2: ["b", "d"]}  # the group of the first image is the first


def configure(project, **settings):
    project.configure(**(FOLDED | settings))


@pytest.fixture(scope="module")
def folded(tmp_path_factory, python) -> Project:
    """A finished run of a model in two folds, sparsely annotated; its slide is also a training image, to compare."""
    project, generator = Project(tmp_path_factory.mktemp("folded"), python=python), np.random.default_rng(0)
    for name in GROUPS:
        labels = np.zeros((48, 56), np.uint8)
        labels[8:20, 8:24], labels[30:40, 20:50], labels[:, 46:] = 1, 2, UNKNOWN
        image = np.clip(90 * np.isin(labels, (1, 2)) + generator.normal(60, 20, labels.shape), 0, 255).astype(np.uint8)
        for folder, pixels in (("training/images", image), ("training/labels", labels)):
            project.drop(f"{folder}/{name}.tif", pixels)
        if name == "b":
            slide, reference = image, labels
    configure(project)
    sheet = project.folder / "config" / "training.csv"
    sheet.write_text("sample,group\n" + "".join(f"{name},{group}\n" for name, group in GROUPS.items()))
    trained = project.run("train")  # there is no slide yet
    assert "no slides; trained: net" in trained
    assert ">Cross-validation</h2>" in (project.folder / "results" / "report.html").read_text()
    project.drop("slides/b.tif", slide)
    project.drop("references/b.tif", reference)
    assert set(project.planned()) == {"tile", "predict", "stitch", "objects", "evaluate", "report", "finish", "all"}
    project.run()
    return project


def validation_of(project, fold):
    return pd.read_csv(project.folder / f"results/validation/net/fold{fold}.csv").set_index("sample")


def test_each_fold_is_a_training_and_the_model_is_their_average(folded):
    models = folded.folder / "results" / "models" / "net"
    for fold, names in HELD_BACK.items():
        card = read_json(models / f"fold{fold}" / "model.json")
        assert (card["architecture"], card["validation"]) == ("unet", names)
        history = pd.read_csv(models / f"fold{fold}" / "history.csv")
        assert card["metrics"]["step"] == history["step"].iloc[-1]  # the last weights, not the best
    card = read_json(models / "model.json")
    assert (card["architecture"], len(card["options"]["members"])) == ("ensemble", 2)
    assert card["validation"] == list(GROUPS)
    scores = [read_json(models / f"fold{fold}" / "model.json")["metrics"]["foreground_dice"] for fold in HELD_BACK]
    assert card["metrics"]["foreground_dice"] == pytest.approx(np.mean(scores))
    assert card["metrics"]["sd_foreground_dice"] == pytest.approx(np.std(scores, ddof=1))
    assert [path.name for path in (folded.folder / "results" / "weight_maps").iterdir()] == ["net"]
    assert folded.metrics().loc["b", "model"] == "net"


def test_a_slide_that_is_a_training_image_is_flagged_and_is_no_evidence(folded):
    assert "the network was trained on this image" in folded.metrics().loc["b", "flags"]
    ranking = folded.comparison().loc["net"]
    assert ranking["samples"] == 0
    assert np.isnan(ranking["foreground_dice"])


def test_the_table_of_folds_has_each_image_once_and_the_spread(folded):
    table = pd.read_csv(folded.folder / "results" / "folds.csv").set_index("fold")
    parts = {fold: validation_of(folded, fold) for fold in HELD_BACK}
    for fold, names in HELD_BACK.items():
        assert list(parts[fold].index) == names
        assert parts[fold]["group"].unique().tolist() == [GROUPS[names[0]]]
        assert parts[fold]["pixels_ignored"].tolist() == [48 * 10] * 2
        assert tuple(table.loc[str(fold), ["model", "images", "groups"]]) == ("net", 2, 1)
        for measure in ("dice_object", "jaccard_mean", "objects_f1_50"):
            assert float(table.loc[str(fold), measure]) == pytest.approx(parts[fold][measure].mean(), nan_ok=True)
    scores = [part["foreground_dice"].mean() for part in parts.values()]
    expected = [np.mean(scores), np.std(scores, ddof=1), min(scores), max(scores)]
    np.testing.assert_allclose(table.loc[["mean", "sd", "min", "max"], "foreground_dice"].astype(float), expected)
    assert tuple(table.loc["mean", ["images", "groups"]]) == (4, 2)
    page = (folded.folder / "results" / "report.html").read_text(encoding="utf-8")
    assert "<h2>Cross-validation</h2>" in page
    assert f"{np.mean(scores):.4f}" in page


def test_nothing_is_left_to_do_and_a_metric_option_trains_nothing(folded):
    assert folded.planned() == {}
    configure(folded, metrics={"tolerance_px": 3.0})
    assert folded.planned() == {"validate": 2, "evaluate": 1, "report": 1, "finish": 1, "all": 1}
    configure(folded)


def test_another_number_of_folds_leaves_the_weight_maps(folded):
    configure(folded, models={"net": NETWORK})
    planned = folded.planned()
    assert (planned["train_network"], planned["predict"]) == (1, 1)
    assert not {"weigh", "validate", "combine"} & set(planned)
    configure(folded, models={"net": NETWORK | {"folds": 3}})
    refused = folded.snakemake("--dry-run")
    assert refused.returncode != 0
    assert "folds: 3 needs as many groups of training images, got 2 (mouse, rat)" in refused.stdout + refused.stderr
    configure(folded)


def test_a_fold_is_measured_as_its_network_would_be_on_a_slide(folded):
    """The network that has not seen b segments b as a slide; it also serves as a checkpoint and in an ensemble."""
    checkpoint = {"checkpoint": "results/models/net/fold2/model.safetensors"}
    follower = NETWORK | {"folds": 2, "pretrained": "net"}
    models = FOLDED["models"] | {"fold": checkpoint, "follower": follower}
    configure(folded, models=models, ensembles={"both": {"members": ["net", "fold"]}})
    planned = folded.planned()
    assert (planned["train_network"], planned["validate"], planned["combine"]) == (2, 2, 2)
    asked = ("evaluate/fold/0001", "stitch/both/0001", "train/follower/fold2")
    done = folded.snakemake(*(f"results/ledgers/{name}.json" for name in asked))
    assert done.returncode == 0, done.stderr
    slide = pd.read_csv(folded.folder / "results/metrics/fold/b.csv").iloc[0]
    image = validation_of(folded, 2).loc["b"]
    shared = [name for name in slide.index if name in image.index and not name.endswith(("sha256", "version"))]
    assert len(shared) > 50
    pd.testing.assert_series_equal(slide[shared], image[shared], check_names=False)
    card = read_json(folded.folder / "results" / "models" / "both" / "model.json")
    assert [member["architecture"] for member in card["options"]["members"]] == ["ensemble", "unet"]
    assert tifffile.imread(folded.folder / "results/masks/both/b.ome.tiff").shape == (48, 56)
    log = (folded.folder / "logs/train/follower/fold2.log").read_text()
    assert "started from results/models/net/fold2/model.safetensors" in log


def test_an_image_that_is_added_needs_a_group_and_redoes_the_training(folded):
    configure(folded)
    for kind in ("images", "labels"):
        source = folded.folder / "data" / "training" / kind / "d.tif"
        folded.drop(f"training/{kind}/e.tif", source.read_bytes())
    refused = folded.snakemake("--dry-run")
    assert "config/training.csv: no line for the training image 'e'; add its group" in refused.stdout + refused.stderr
    with (folded.folder / "config" / "training.csv").open("a") as sheet:
        sheet.write("e,rat\n")
    planned = folded.planned()
    assert (planned["weigh"], planned["train_network"], planned["validate"], planned["combine"]) == (1, 2, 2, 1)
