"""`estimate` reads slides as the workflow will."""

import numpy as np
import pytest
import tifffile

from pipeline.base.errors import SlidemillError
from pipeline.commands import estimate as module
from pipeline.commands.estimate import _card, _grids
from pipeline.prediction.estimate import Throughput, estimate
from pipeline.settings.schema import ImageConfig, Settings, parse_settings
from tests.support.slide_files import touch

PARTS = ("images", "labels")


@pytest.mark.parametrize("pixel_size_um", [None, 1.0])
def test_the_sample_sheet_counts(in_folder, pixel_size_um):
    """Its pixel size and channels, by the id that a slide has in the drop folder; one elsewhere has its name as id."""
    settings = Settings(image=ImageConfig(pixel_size_um=pixel_size_um))
    slides = [in_folder / "data/slides/plate/a.ome.tif", in_folder / "elsewhere.tif", in_folder / "unknown.tif"]
    for path in slides:
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.zeros((2, 80, 60), np.uint8), metadata={"axes": "CYX", "PhysicalSizeX": 1}, ome=True)
    sheet = in_folder / settings.samples
    sheet.parent.mkdir(exist_ok=True)
    sheet.write_text("sample,pixel_size_um,channels\nplate/a,0.5,1\nelsewhere,2,\n")
    grids, errors = _grids(slides, _card(settings, "unet"), settings)
    sizes = {path.name: (grid.shape, size) for path, (grid, size, _) in grids.items()}
    if pixel_size_um:
        assert sizes == {"a.ome.tif": ((40, 30), (1.0, 1.0)), "elsewhere.tif": ((160, 120), (1.0, 1.0))}
        assert ["no pixel size in the file" in str(error) for error in errors] == [True]
    else:
        assert sizes == {
            "a.ome.tif": ((80, 60), (0.5, 0.5)),
            "elsewhere.tif": ((80, 60), (2.0, 2.0)),
            "unknown.tif": ((80, 60), None),
        }


def test_a_stack_whose_planes_are_segmented_takes_as_long_as_all_of_them(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((3, 80, 60), np.uint8), metadata={"axes": "ZYX"})
    settings = Settings(image={"z": "each"})
    card = _card(settings, "unet")
    ((grid, size_um, planes),) = _grids([tmp_path / "a.ome.tif"], card, settings)[0].values()
    assert (grid.shape, planes) == ((80, 60), 3)
    speed = Throughput(px_per_s=1000.0, redundancy=1.0, source="")
    one, all_planes = (estimate(grid, size_um, card, speed, probabilities=False, planes=n) for n in (1, 3))
    assert all_planes.time_s == pytest.approx(3 * one.time_s)
    assert all_planes.disk_mb == pytest.approx(3 * one.disk_mb)
    assert (all_planes.tiles, all_planes.memory_mb) == (3 * one.tiles, one.memory_mb)


def test_the_next_run_is_its_trainings_and_all_stages(in_folder, monkeypatch):
    """With the speed of the network for its steps and slides; max_minutes ends a training earlier."""
    touch(in_folder / "data", "slides/a.tif", *(f"training/{part}/{name}.tif" for part in PARTS for name in "ab"))
    settings = {"settle_s": 0, "models": {"net": {"max_steps": 100}, "short": {"max_minutes": 1}}}
    monkeypatch.setattr(module, "_step_s", lambda *_, **__: 6.0)
    lines = list(module._next_run(parse_settings(settings, source=""), {"net": {"data/slides/a.tif": 600.0}}, 1))
    assert lines[0].startswith("the next run: about 22 min")
    assert "  train of net: 10 min, 1 job" in lines
    assert "  predict of net: 10 min, 1 job" in lines
    assert "  train of short: 70 s, 1 job" in lines


def test_a_checkpoint_that_is_not_there_is_one_line(in_folder):
    touch(in_folder / "data", "slides/a.tif")
    (in_folder / "config.yaml").write_text("models: {given: {checkpoint: nowhere/model.safetensors}}")
    with pytest.raises(SlidemillError, match=r"^models.given.checkpoint: there is no nowhere/model.saf"):
        module.run([], settings=in_folder / "config.yaml", threads=1)
