"""Names of samples and batches: the folder of a sample, the id of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from pipeline.base.files import identity_of

_WITH_PROBABILITIES = "-probabilities"


def folder_of(sample: str) -> str:
    """Return the folder that a sample was dropped in, or its own name if it is in none."""
    parent = str(PurePosixPath(sample).parent)
    return sample if parent == "." else parent


def name_batch(folder: str, versions: Mapping[str, str], *, probabilities: bool) -> str:
    """Return the id of a new batch: ``folder/HASH``, unique for these versions of these slides.

    Parameters
    ----------
    folder : str
        Folder of its slides, or their batch in the sample sheet.
    versions : mapping of str
        Version of every sample in it.
    probabilities : bool
        Whether its predictions have them. Predictions without them get another id, since they cannot replace these.
    """
    ending = _WITH_PROBABILITIES if probabilities else ""
    return f"{folder}/{identity_of(sorted(versions.items()))[:12]}{ending}"


def has_probabilities(batch: str) -> bool:
    """Return whether the predictions of a batch have probabilities beside the labels."""
    return batch.endswith(_WITH_PROBABILITIES)
