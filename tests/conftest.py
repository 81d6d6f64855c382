"""What tests share: where the real micrographs are, and small files that they make themselves."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from tests.support.paths import DATA

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests send it to what they start
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as behind nohup
    signal.signal(signal.SIGHUP, lambda *_: None)  # still of no effect here, but what is started hears it
settings.register_profile("slidemill", deadline=None, print_blob=True)
settings.load_profile("slidemill")
# Test runs side by side have a core each; threads that wait give theirs away, also in the jobs that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real micrographs."""
    if not DATA.is_dir():
        pytest.skip(f"no real micrographs at {DATA}; set SLIDEMILL_DATA")
    return DATA


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(20150518)
