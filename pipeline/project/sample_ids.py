"""Names of samples and batches: which folder a sample was dropped in, what a batch is called."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePosixPath

_WITH_PROBABILITIES = "-probabilities"


def folder_of(sample: str) -> str:
    """Return the folder a sample was dropped in, or itself where it was dropped alone."""
    parent = str(PurePosixPath(sample).parent)
    return sample if parent == "." else parent


def name_batch(folder: str, versions: Mapping[str, str], *, probabilities: bool) -> str:
    """Return the id of a new batch: ``folder/HASH``, other slides or versions of them have another one.

    Parameters
    ----------
    folder : str
        What its slides have in common.
    versions : mapping of str
        Of every sample in it.
    probabilities : bool
        Whether its predictions have them; those without cannot stand in for them.
    """
    content = json.dumps(sorted(versions.items()))
    mark = _WITH_PROBABILITIES if probabilities else ""
    return f"{folder}/{hashlib.sha256(content.encode()).hexdigest()[:12]}{mark}"


def has_probabilities(batch: str) -> bool:
    """Return whether the predictions of a batch have probabilities beside the labels."""
    return batch.endswith(_WITH_PROBABILITIES)
