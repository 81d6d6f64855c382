"""A setting of the masks brings with it what it needs, and leaves nothing behind."""

import numpy as np
import tifffile


def test_a_watershed_has_its_probabilities_and_keeps_none(project, micrograph):
    project.configure(
        masks={"instances": "watershed", "min_object_um2": 1.0, "max_hole_um2": 1.0},
        image={"fallback_pixel_size_um": 0.5},
    )
    project.drop("slides/a.tif", micrograph)
    project.drop("references/a.tif", (micrograph > 99).astype(np.uint8))
    done = project.snakemake()
    assert done.returncode == 0, done.stderr
    results = project.folder / "results"
    with tifffile.TiffFile(results / "masks" / "net" / "a.ome.tiff") as mask:
        classes, instances = (series.asarray() for series in mask.series)
    assert ((instances > 0) == (classes > 0)).all()
    areas = np.bincount(instances.ravel())[1:]
    assert len(areas) == project.metrics().loc["a", "objects_predicted"]
    assert [path.name for path in (results / "predictions" / "net").iterdir()] == ["a.json"]
    assert project.planned() == {}
