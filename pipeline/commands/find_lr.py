"""Find the range of usable learning rates of one network of the project, before it is trained."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.base import paths
from pipeline.base.errors import SlidemillError
from pipeline.base.files import replacing, write_text
from pipeline.project.channels import with_channels
from pipeline.project.stage_settings import stage_config
from pipeline.project.training_pairs import find_pairs
from pipeline.report.figures import range_test
from pipeline.runtime.device import choose_devices, set_up_process
from pipeline.runtime.job_limits import cores
from pipeline.settings.schema import read_settings
from pipeline.settings.stage_sections import TrainConfig, parse_stage_config
from pipeline.training.data.batches import training_batches
from pipeline.training.lr_range import smooth, try_rates, usable_range
from pipeline.training.prepare import prepare_training
from pipeline.training.processes import start_fabric
from pipeline.training.step import Learner

log = logging.getLogger(__name__)

_LOWEST, _HIGHEST = 1e-6, 1.0


def run(
    *,
    model: str,
    settings: Path = Path("config/config.yaml"),
    output: Path = Path("results/find-lr"),
    steps: int = 100,
    threads: int = cores(),
) -> None:
    """Print a range of learning rates; run it in the project folder, after `snakemake --cores 8 --until weigh`.

    Parameters
    ----------
    model : str
        Entry of `models` in the configuration.
    settings : Path
        Configuration of the project.
    output : Path
        Folder to write MODEL.csv and MODEL.svg into.
    steps : int
        Steps in which the rate rises from 1e-6 to 1; the test ends early if the loss explodes.
    threads : int
        CPU threads that the command may use.
    """
    project = read_settings(settings)
    if model not in project.models:
        raise SlidemillError(f"{settings}: no model {model!r}; there are {', '.join(project.models)}")
    set_up_process(threads)
    pairs = find_pairs(Path(project.training.images), Path(project.training.labels))
    project, _ = with_channels(project, [pair.image for pair in pairs], [])
    config = parse_stage_config(TrainConfig, stage_config(project, "train", model))
    weight_maps = Path(paths.WEIGHT_MAPS.format(model=model))
    if missing := [pair.name for pair in pairs if not (weight_maps / f"{pair.name}.tif").is_file()]:
        raise SlidemillError(f"{weight_maps}: no weight map of {missing[0]}; run snakemake --cores 8 --until weigh")
    prepared = prepare_training(pairs, weight_maps, config, memory_mb=project.training.memory_mb)
    fabric = start_fabric(choose_devices(1), prepared.config.precision)
    batches = training_batches(fabric, prepared.images, prepared.config, first=0)
    rates = np.geomspace(_LOWEST, _HIGHEST, steps).tolist()
    losses = try_rates(Learner(fabric, prepared.network, prepared.config), batches, rates)
    tried = pd.DataFrame({"learning_rate": rates[: len(losses)], "loss": losses, "smoothed": smooth(losses)})
    with replacing(output / f"{model}.csv") as temporary:
        tried.to_csv(temporary, index=False)
    lowest, highest = usable_range(rates, losses)
    write_text(output / f"{model}.svg", range_test(tried, lowest, highest))
    print(f"learning_rate: {lowest:.2g} to {highest:.2g}")
    log.info("%s and %s.svg show the test", output / f"{model}.csv", model)
