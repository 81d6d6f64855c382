"""The samples whose results are exported: those that are done under one network, all or those that are named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.base import paths
from pipeline.base.errors import SlidemillError
from pipeline.base.files import read_json
from pipeline.project.sample_sheet import read_groups
from pipeline.report.outcome import Outcome, outcomes
from pipeline.settings.schema import Settings, parse_settings


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Samples that are done under one network, at least one, by name.

    ``settings`` are those of the last run; ``groups`` has the group of each sample that has one.
    """

    outcomes: list[Outcome]
    settings: Settings
    groups: Mapping[str, str]


def select(names: Sequence[str], model: str) -> Selection:
    """Return the samples of the project in the current folder.

    Parameters
    ----------
    names : sequence of str
        Samples, and folders of the drop folder; none: all that are done.
    model : str
        The network; empty where there is only one.

    Raises
    ------
    SlidemillError
        If there was no run, a name is unknown, a sample that is named is not done, or none is.
    """
    if not Path(paths.PROVENANCE).is_file():
        raise SlidemillError(f"{paths.PROVENANCE}: not found; run the project first, or name its folder by --directory")
    settings = parse_settings(read_json(Path(paths.PROVENANCE))["config"], source=paths.PROVENANCE)
    network = _network(settings, model)
    found = [outcome for outcome in outcomes(settings) if outcome.model == network]
    chosen = [outcome for outcome in found if not names or any(_is_named(outcome.sample, name) for name in names)]
    for name in names:
        if not any(_is_named(outcome.sample, name) for outcome in found):
            known = ", ".join(outcome.sample for outcome in found[:3])
            raise SlidemillError(f"{name}: no sample or folder of that name; there are {len(found)}: {known}, ...")
    for outcome in chosen:
        if outcome.sample in names and not outcome.is_done:
            raise SlidemillError(f"{outcome.sample} is not done: {outcome.error}")
    done = sorted((outcome for outcome in chosen if outcome.is_done), key=lambda outcome: outcome.sample)
    if not done:
        raise SlidemillError(f"no sample is done under {network}; run the project first")
    return Selection(
        outcomes=done,
        settings=settings,
        groups=read_groups(Path(settings.samples), {outcome.sample for outcome in found}),
    )


def refuse_stacks(chosen: Selection, what: str) -> None:
    """Refuse stacks whose planes were segmented one by one, which ``what`` is not made for.

    Raises
    ------
    SlidemillError
        If ``image.z`` or ``image.t`` is ``each``.
    """
    if each := chosen.settings.image.each:
        axes = " and ".join(f"image.{axis}" for axis in each)
        raise SlidemillError(
            f"--to {what}: {axes}: each makes stacks, which it does not write; export the objects, with z and t, "
            "as csv, parquet or anndata, and use the masks as OME-TIFF"
        )


def needed(module: str, extra: str) -> Any:
    """Import a package of an optional extra, or say how it is installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise SlidemillError(f"the package {error.name} is not installed; pip install 'slidemill[{extra}]'") from error


def _network(settings: Settings, model: str) -> str:
    known = list(settings.networks)
    if not model and len(known) > 1:
        raise SlidemillError(f"there are {len(known)} networks; choose one by --model: {', '.join(known)}")
    if model and model not in known:
        raise SlidemillError(f"--model {model}: no network of that name; choose one of {', '.join(known)}")
    return model or known[0]


def _is_named(sample: str, name: str) -> bool:
    return sample == name or sample.startswith(f"{name.rstrip('/')}/")
