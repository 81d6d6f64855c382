"""Measure the network of one fold on the images that were held back from it."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import pandas as pd

from pipeline import __version__
from pipeline.base import paths
from pipeline.base.errors import SlidemillError
from pipeline.base.files import replacing, sha256, spreadsheet_text
from pipeline.metrics.evaluation import Row
from pipeline.metrics.names import HEADLINE
from pipeline.networks.weights_file import load_network
from pipeline.prediction.loop import make_ready
from pipeline.project.jobs.batch_job import Made
from pipeline.project.jobs.fingerprints import Inputs
from pipeline.project.jobs.network_job import inputs_of_validate, make_network
from pipeline.project.splits import Groups, group_pairs, split_pairs
from pipeline.project.training_pairs import find_pairs
from pipeline.runtime.device import prepare
from pipeline.settings.stage_sections import ValidateConfig
from pipeline.training.comparison.pair_metrics import PairPredictor, measure_pair

log = logging.getLogger(__name__)


def run(
    *,
    model: str,
    images: Path,
    labels: Path,
    threads: int,
    memory_mb: int,
    config: ValidateConfig,
) -> None:
    """Write the metrics of each training image that was held back from the network.

    Parameters
    ----------
    model : str
        Name of the fold (``unet/fold1``).
    images : Path
        Folder of the training images.
    labels : Path
        Folder of the labels, with the names of the images.
    threads : int
        CPU threads that the job may use.
    memory_mb : int
        Memory that the job may use, in MB.
    config : ValidateConfig
        The split, and how to predict and measure.
    """
    network, output = (Path(pattern.format(model=model)) for pattern in (paths.NETWORK, paths.VALIDATION))

    def groups() -> Groups:
        return group_pairs(find_pairs(images, labels), Path(config.split.samples))

    def made_from() -> Inputs:
        return inputs_of_validate(split_pairs(groups(), config.split)[1], network)

    def make() -> Made:
        return _validate(groups(), network=network, output=output, threads=threads, memory_mb=memory_mb, config=config)

    make_network("validate", model, config, make, made_from=made_from, after=[("train", model)])


def _validate(
    groups: Groups, *, network: Path, output: Path, threads: int, memory_mb: int, config: ValidateConfig
) -> Made:
    _, held_back = split_pairs(groups, config.split)
    (device,) = prepare(threads)
    loaded, card = load_network(network)
    if card.validation != [pair.name for pair in held_back]:
        raise SlidemillError(
            f"{network}: trained without {len(card.validation)} images, not the {len(held_back)} held back now; "
            "train it again"
        )
    make_ready(loaded, device, config.precision)
    group_of = {pair.name: name for name, pairs in groups.items() for pair in pairs}
    origin: Row = {"version": __version__, "weights_sha256": sha256(network)}
    predictor = PairPredictor(
        network=loaded,
        card=card,
        labels=config.labels,
        tile=config.tile,
        memory_mb=memory_mb,
        threads=threads,
    )
    rows = []
    with replacing(output) as temporary:
        for pair in held_back:
            with tempfile.TemporaryDirectory(dir=temporary.parent) as scratch:
                measured = measure_pair(predictor, pair, config, scratch=Path(scratch))
            log.info("%s: foreground Dice %.4f", pair.name, measured[HEADLINE])
            names: Row = {"sample": spreadsheet_text(pair.name), "group": spreadsheet_text(group_of[pair.name])}
            rows.append(names | measured | origin)
        pd.DataFrame(rows).to_csv(temporary, index=False)
    return Made(files=[output])
