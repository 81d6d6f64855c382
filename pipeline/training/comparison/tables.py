"""The tables in the ``model.json`` of a network: what can follow it, compared on images that it did not learn from."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

import models
from pipeline.base.errors import SlideError, SlidemillError
from pipeline.base.files import replacing
from pipeline.networks.model_card import card_path, read_card, write_comparisons
from pipeline.networks.weights_file import load_network
from pipeline.prediction.loop import make_ready
from pipeline.project.training_pairs import TrainingPair
from pipeline.settings.masks import best_field
from pipeline.settings.schema import MIRROR_PX
from pipeline.settings.stage_sections import ComparisonConfig, TileConfig
from pipeline.training.comparison.pair_metrics import PairPredictor
from pipeline.training.comparison.partings import compare_partings
from pipeline.training.comparison.refinements import compare_refinements

log = logging.getLogger(__name__)


def compare_on_held_back(
    weights: Path,
    held_back: Sequence[TrainingPair],
    config: ComparisonConfig,
    *,
    device: torch.device,
    memory_mb: int,
) -> list[str]:
    """Write the tables that its card lacks. If memory is too small they are empty, and a warning is returned.

    Parameters
    ----------
    weights : Path
        The network file; its card is beside it.
    held_back : sequence of TrainingPair
        Annotated images that the network did not learn from.
    config : ComparisonConfig
        How they are read, and whether random fields are compared: none is for a network that detects objects.
    device : torch.device
        Where to predict, in float32.
    memory_mb : int
        Memory limit of reading and prediction.

    Raises
    ------
    SlideError
        If an image or its labels cannot be read.
    """
    known = read_card(card_path(weights))
    refines = not known.crf and config.compares_crf and not models.detects_objects(known.architecture)
    if known.parting and not refines:
        return []
    network, card = load_network(weights)
    make_ready(network, device, "float32")
    with replacing(card_path(weights)) as temporary:
        predictor = PairPredictor(
            network=network,
            card=card,
            labels=config.labels,
            tile=TileConfig(image=config.image, tile_px=None, mirror_px=MIRROR_PX, skip_glass=False),
            memory_mb=memory_mb,
            threads=torch.get_num_threads(),
            shared=temporary.with_name("predictions") if refines else None,
        )
        warnings: list[str] = []
        compare = partial(_compared, predictor, held_back, warnings, scratch=temporary.parent)
        tables: dict[str, list[Any]] = {"parting": known.parting or compare(compare_partings)}
        if refines:
            tables["crf"] = compare(compare_refinements)
            if field := best_field([asdict(one) for one in tables["crf"]]):
                tables["parting"] += compare(partial(compare_partings, field=field))
        write_comparisons(card_path(weights), output=temporary, **tables)
    for one in chain(*tables.values()):
        log.info("on the held-back images: %s", json.dumps(asdict(one)))
    return warnings


def _compared(
    predictor: PairPredictor,
    held_back: Sequence[TrainingPair],
    warnings: list[str],
    compare: Callable[..., list[Any]],
    *,
    scratch: Path,
) -> list[Any]:
    """Return the table of a comparison; an empty one if memory is too small: the network serves all the same."""
    try:
        return compare(predictor, held_back, scratch=scratch)
    except SlideError:
        raise
    except SlidemillError as error:
        warning = f"nothing is compared on the held-back images for masks: {error}"
        log.warning(warning)
        warnings.append(warning)
        return []
