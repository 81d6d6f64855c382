"""Write the mask of a predicted slide: classes and objects over all tiles, with pyramid and pixel size."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pipeline.base.arrays import Array
from pipeline.base.errors import SlideError, SlidemillError
from pipeline.base.files import provenance, replacing, sha256
from pipeline.masks.instances import mask_images, pixel_area
from pipeline.masks.ome_tiff import write_label_images
from pipeline.networks.model_card import read_card
from pipeline.prediction.store import network_sha256, open_prediction
from pipeline.settings.schema import MaskConfig
from pipeline.tiling.plan import read_plan


def run(*, sample: str, prediction: Path, plan: Path, model: Path, output: Path, config: MaskConfig) -> None:
    """Write the mask of one sample; fails with the recorded reason if its slide could not be read.

    Parameters
    ----------
    sample : str
        Id of the sample.
    prediction : Path
        Prediction of the batch of the sample (zarr zip).
    plan : Path
        Plan of the sample.
    model : Path
        Description of the network (model.json).
    output : Path
        Mask to write (OME-TIFF).
    config : MaskConfig
        How objects are made.
    """
    planned = read_plan(plan)
    if planned.slide is None:
        raise SlideError(planned.error, stage="tile")
    pixel_size_um = planned.slide.pixel_size_um
    pixel_um2 = pixel_area(pixel_size_um, config, slide=planned.slide.slide)
    card = read_card(model)
    made_from = {"slide": planned.slide.slide_sha256, "model_json": sha256(model)}
    if weights := network_sha256(prediction):
        made_from["weights"] = weights
    with (
        open_prediction(prediction, sample) as group,
        replacing(output) as temporary,
        tempfile.TemporaryDirectory(dir=temporary.parent) as scratch,
    ):
        probabilities: Array | None = group.get("probabilities")  # type: ignore[assignment]
        if config.instances == "watershed" and probabilities is None:
            raise SlidemillError(
                f"{prediction}: has no probabilities, which masks.instances 'watershed' needs; predict again with them"
            )
        labels: Array = group["labels"]  # type: ignore[assignment]
        images = mask_images(labels, probabilities, config, pixel_um2=pixel_um2, scratch=Path(scratch))
        write_label_images(
            temporary,
            images,
            pixel_size_um=pixel_size_um,
            annotations={
                "sample": sample,
                "classes": ", ".join(card.classes),
                **provenance("stitch", config, **made_from),
            },
        )
