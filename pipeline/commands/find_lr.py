"""Find a learning rate for one network of the project, before it is trained."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.base import paths
from pipeline.base.errors import SlidemillError
from pipeline.base.files import replacing, write_text
from pipeline.networks.pretrained import build_network
from pipeline.project.stage_settings import stage_config
from pipeline.project.training_pairs import find_pairs
from pipeline.report.figures import range_test
from pipeline.runtime.device import choose_devices, set_up_process
from pipeline.runtime.limits import cores
from pipeline.settings.schema import read_settings
from pipeline.settings.stages import TrainConfig, parse_stage_config
from pipeline.training.auto_settings import settle
from pipeline.training.data.annotated import open_pairs
from pipeline.training.data.batches import Batches
from pipeline.training.data.fingerprint import describe_training_set
from pipeline.training.data.patches import RandomPatches
from pipeline.training.lr_range import smooth, suggest, try_rates
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
    """Print a learning rate; run it in the project folder, after `snakemake --cores 8 --until weigh`.

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
        CPU threads.
    """
    project = read_settings(settings)
    if model not in project.models:
        raise SlidemillError(f"{settings}: no model {model!r}; there are {', '.join(project.models)}")
    config = parse_stage_config(TrainConfig, stage_config(project, "train", model))
    set_up_process(threads)
    pairs = find_pairs(Path(project.training.images), Path(project.training.labels))
    weights = Path(paths.WEIGHT_MAPS.format(model=model))
    if missing := [pair.name for pair in pairs if not (weights / f"{pair.name}.tif").is_file()]:
        raise SlidemillError(f"{weights}: no weight map of {missing[0]}; run snakemake --cores 8 --until weigh")
    memory_mb = project.training.memory_mb
    shape = {"in_channels": len(config.image.channels), "num_classes": len(config.labels.classes)}
    data = describe_training_set(pairs, config.labels, config.image, memory_mb=memory_mb)
    settled = settle(config.model, data, memory_mb=memory_mb, **shape)
    fabric = start_fabric(choose_devices(1), settled.precision)
    patches = RandomPatches(
        open_pairs(pairs, weights, memory_mb=memory_mb, config=config),
        patch_px=settled.patch_px,
        config=settled.augmentation,
        seed=settled.seed,
        balance=settled.balance,
    )
    batches = Batches(fabric, patches, batch_size=settled.batch_size, first=0)
    rates = np.geomspace(_LOWEST, _HIGHEST, steps).tolist()
    losses = try_rates(Learner(fabric, build_network(settled, **shape), settled), batches, rates)
    tried = pd.DataFrame({"learning_rate": rates[: len(losses)], "loss": losses, "smoothed": smooth(losses)})
    with replacing(output / f"{model}.csv") as temporary:
        tried.to_csv(temporary, index=False)
    best = suggest(rates, losses)
    write_text(output / f"{model}.svg", range_test(tried, best))
    print(f"learning_rate: {best:.2g}")
    log.info("%s and %s.svg show the test", output / f"{model}.csv", model)
