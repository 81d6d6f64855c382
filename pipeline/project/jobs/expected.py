"""What a run expects of every sample: the fingerprint of each of its stages under each network."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from pipeline.base.files import identity_of
from pipeline.project.drop.drop_folder import Sample
from pipeline.project.jobs.fingerprints import (
    ALGORITHMS,
    BEFORE,
    Inputs,
    Network,
    fingerprint,
    inputs_of,
    network_fingerprint,
    plan_of_pixels,
    recipe,
)
from pipeline.project.jobs.ledger import MAKERS, network_ledger_path, read_ledger
from pipeline.project.stage_settings import masks_of, network_file, stage_config
from pipeline.settings.schema import Settings

STAGES = tuple(ALGORITHMS)


class Expected:
    """The fingerprints that the results of a run must have. Networks and settings are looked at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.network = cache(self._network)
        self.common = cache(self._common)
        self.config = cache(self._stage_config)
        self._recipe = cache(lambda stage, model: recipe(stage, self.config(stage, model)))
        self.kept = cache(self._kept)

    def of(self, model: str, sample: Sample) -> dict[str, str]:
        """Return the fingerprint of each stage of a sample under a network; ``evaluate`` needs a reference."""
        return {stage: wanted for stage, wanted, _ in self._walk(model, sample)}

    def inputs(self, model: str, sample: Sample) -> dict[str, Inputs]:
        """Return what each stage of a sample is made from."""
        return {stage: inputs for stage, _, inputs in self._walk(model, sample)}

    def _walk(self, model: str, sample: Sample) -> Iterator[tuple[str, str, Inputs]]:
        found, pixels = dict[str, str](), ""
        for stage in STAGES:
            if stage == "evaluate" and not sample.reference:
                continue
            before = pixels if stage == "predict" else found.get(BEFORE.get(stage, ""), "")
            plan = found.get("tile", "")
            inputs = inputs_of(stage, sample, before=before, plan=plan, network=self.network(model))
            found[stage] = fingerprint(stage, self.config(stage, model), inputs)
            if stage == "tile":
                pixels = plan_of_pixels(found[stage], self._recipe(stage, model), inputs)
            yield stage, found[stage], inputs

    def serves(self, stage: str, model: str, inputs: Inputs) -> bool:
        """Return whether a network job is done, from these inputs and under the settings of now."""
        entry = read_ledger(network_ledger_path(stage, model)).get(model)
        return entry is not None and any(
            entry.serves(fingerprint(stage, config, inputs)) for config in self._serving(stage, model)
        )

    def _serving(self, stage: str, model: str) -> Iterator[str]:
        """Yield the settings under which a network job makes what is wanted: those of now, and with random fields."""
        yield self.config(stage, model)
        if stage in MAKERS:
            masks = self._settings.masks.model_copy(update={"crf": "auto"})
            yield stage_config(self._settings.model_copy(update={"masks": masks}), stage, model)

    def _common(self, model: str) -> str:
        """Return one fingerprint of all that the samples of a model share: settings, algorithms, network."""
        sample = Sample(slide="", reference="any")
        return identity_of([self.kept(model), self.of(model, sample)])

    def _kept(self, model: str) -> list[str]:
        """Return what predictions of a model must have beside labels, for its masks or for the user."""
        masks = masks_of(self._settings.masks, Path(network_file(self._settings, model)))
        return sorted(self._settings.prediction.kept(masks))

    def _network(self, model: str) -> Network:
        """Return the fingerprint of the network of a model, as it is now."""
        return network_fingerprint(Path(network_file(self._settings, model)))

    def _stage_config(self, stage: str, model: str) -> str:
        if stage == "stitch":  # as the stage resolves it
            masks = masks_of(self._settings.masks, Path(network_file(self._settings, model)))
            return stage_config(self._settings.model_copy(update={"masks": masks}), stage, model)
        return stage_config(self._settings, stage, model)
