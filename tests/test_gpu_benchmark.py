"""The benchmark for GPUs runs from end to end, here on the processor and with tiny sizes."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT


@pytest.mark.slow
def test_every_figure_is_printed_and_in_the_table():
    command = [sys.executable, "-m", "tests.benchmarks.gpu", "--tiny"]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    lines = done.stdout.splitlines()
    figures = [json.loads(line) for line in lines if line.startswith("{")]
    named = {figure["figure"] for figure in figures}
    assert named == {"machine", "trained", "monai", "sliding_window", "predict", "fields", "step"}
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
    assert set(rows[2:]) == {"against MONAI", "predict", "fields", "step"}
