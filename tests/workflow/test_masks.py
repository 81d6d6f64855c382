"""A setting of the masks brings with it what it needs."""

import numpy as np
import tifffile

from pipeline.prediction.store import open_prediction


def test_a_watershed_has_its_probabilities(project, micrograph):
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
    (prediction,) = (results / "predictions" / "net" / "a").glob("*.zip")
    with open_prediction(prediction, "a") as group:
        assert group["probabilities"].shape == (2, *micrograph.shape)
    assert project.planned() == {}
