"""What a stranger put into a project changes nothing: its own modules, odd names, paths and links that lead out."""

import json
import os

import numpy as np
import pytest
import yaml

from tests.support.networks import CLASSES, write_network
from tests.support.workflow import Project

MODULES = ["pipeline", "torch", "random", "numpy", "json", "yaml", "pydantic", "pebble", "zarr", "models/__init__"]
SLIDES, NETWORK = "data/dropped {here}", "net {a}/model.safetensors"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory, micrograph):
    """A project with everything that has been seen to lead astray, after a run."""
    project = Project(tmp_path_factory.mktemp("hostile") / "project")
    folder = project.folder
    write_network(folder / "net {a}", width=2, depth=2)
    (folder / "config").mkdir(parents=True)
    config = {"settle_s": 0, "classes": CLASSES, "slides": SLIDES, "models": {"net": {"checkpoint": NETWORK}}}
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "models").mkdir()
    for name in MODULES:
        (folder / f"{name}.py").write_text(f"open({str(folder.parent / 'executed')!r}, 'a').write({name!r})\n")
    for name in ("good", "well {A1}", "@eaDir/thumb", "lost+found/old"):
        project.drop(f"{SLIDES.removeprefix('data/')}/{name}.tif", micrograph)
    drop = folder / SLIDES
    (drop / "notes.txt").write_text("not a slide")
    (folder / "outside" / "0").mkdir(parents=True)
    (drop / "out.tif").symlink_to("../../net {a}/model.json")
    os.mkfifo(drop / "pipe.tif")
    plate = drop / "p.zarr"
    for place, about in {
        ".": {"plate": {"wells": [{"path": "A/1"}]}},
        "A/1": {"well": {"images": [{"path": "../../../../../outside"}]}},
    }.items():
        (plate / place).mkdir(parents=True, exist_ok=True)
        (plate / place / ".zattrs").write_text(json.dumps(about))
    project.drop("references/goood.tif", np.zeros((70, 90), np.uint8))
    return project


@pytest.fixture(scope="module")
def done(project):
    """The run, as it ended."""
    return project.snakemake()


def test_modules_of_the_project_are_not_run(project, done):
    assert done.returncode == 1
    assert not (project.folder.parent / "executed").exists()


@pytest.mark.usefixtures("done")
def test_the_good_slide_is_done_and_every_other_has_its_reason(project):
    table = project.metrics()
    assert table["status"].to_dict() == dict.fromkeys(table.index, "failed") | {"good": "done"}
    reasons = {
        "well {A1}": "a name cannot have braces",
        "out": "a link to a file outside of the drop folder",
        "pipe": "not a regular file",
        "p/A1_f": "leads out of a folder",
    }
    for name, reason in reasons.items():
        (row,) = [row for sample, row in table.iterrows() if sample.startswith(name)]
        assert reason in row["error"]
    assert len(table) == 1 + len(reasons)


@pytest.mark.usefixtures("done")
def test_nothing_is_written_outside_of_results(project):
    known = {"config", "data", "models", "net {a}", "outside", "results", "logs", "benchmarks", ".snakemake"}
    assert {path.name for path in project.folder.iterdir()} - known == {f"{name}.py" for name in MODULES[:-1]}
    assert not any(path.is_file() for path in (project.folder / "outside").rglob("*"))


def test_what_nothing_uses_is_named(done):
    said = done.stdout + done.stderr
    assert f"{SLIDES}/notes.txt (*.txt): not used: no format of slides" in said
    assert "data/references/goood.tif: not used: there is no slide 'goood'; the nearest name is 'good'" in said
    assert "Traceback" not in said
