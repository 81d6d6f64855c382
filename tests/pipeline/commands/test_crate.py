"""A project can be described as an RO-Crate, which other software reads back."""

import pytest
from rocrate.rocrate import ROCrate

from pipeline.base.errors import SlidemillError
from pipeline.base.files import provenance, write_json
from pipeline.commands import crate
from pipeline.settings.schema import Settings

SLIDES = {"a": "data/slides/a.tif", "plate 1/ü #2": "data/slides/plate 1/ü #2.tif"}


@pytest.fixture
def described(in_folder):
    samples, masks = [], {}
    for sample, slide in SLIDES.items():
        mask = f"results/masks/unet/{sample}.ome.tiff"
        masks[mask] = f"sha of {mask}"
        made = {"sample": sample, "model": "unet", "slide": slide, "slide_sha256": f"sha of {slide}", "mask": mask}
        samples.append(
            made | {"status": "done", "weights_sha256": "sha of weights", "device": "cpu", "precision": "float32"}
        )
    unknown = dict.fromkeys(("slide_sha256", "mask", "weights_sha256", "device", "precision"))
    samples.append({"sample": "bad", "model": "unet", "status": "failed", "slide": "data/slides/bad.tif"} | unknown)
    content = provenance("report", Settings(), **masks) | {"samples": samples}
    write_json(in_folder / "results" / "provenance.json", content)
    crate.run()
    return ROCrate(in_folder)


def test_every_mask_is_the_result_of_an_action_on_its_slide_and_the_weights(described):
    actions = [entity for entity in described.get_entities() if entity.type == "CreateAction"]
    assert len(actions) == 2
    for action, (sample, slide) in zip(sorted(actions, key=lambda one: one["name"]), SLIDES.items(), strict=True):
        assert action["name"] == f"Segmentation of {sample} by unet"
        assert action["instrument"]["name"] == "Slidemill"
        assert [one["sha256"] for one in action["object"]] == [f"sha of {slide}", "sha of weights"]
        (mask,) = action["result"] if isinstance(action["result"], list) else [action["result"]]
        assert mask["sha256"] == f"sha of results/masks/unet/{sample}.ome.tiff"


def test_the_network_is_one_file(described):
    weights = [entity for entity in described.get_entities() if entity.get("sha256") == "sha of weights"]
    assert len(weights) == 1


def test_without_a_finished_run_there_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SlidemillError, match="a run writes it"):
        crate.run()
