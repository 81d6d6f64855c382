"""The Python of tests.support.warm runs a job as the real one does."""

import re
import subprocess
import sys

import pytest

from tests.support.paths import ROOT


def run(python, words, **options):
    done = subprocess.run([python, *words], capture_output=True, text=True, check=False, **options)
    return done.returncode, done.stdout, re.sub(r"\d\d:\d\d:\d\d", "", done.stderr)  # without the time of day


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("-m pipeline --version", 0),
        ("-m pipeline finish --folder results", 2),
        ("-m snakemake --snakefile nowhere", 1),
        ("-c print(__name__)", 0),
    ],
)
def test_status_output_folder_and_variables_are_those_of_the_real_one(python, tmp_path, words, status):
    options = {"cwd": tmp_path, "env": {"PYTHONPATH": str(ROOT), "COLUMNS": "50", "HOME": str(tmp_path)}}
    warm, real = (run(path, words.split(), **options) for path in (python, sys.executable))
    assert warm == real
    assert warm[0] == status


def test_another_python_path_is_followed(python, tmp_path):
    elsewhere = {"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}
    (tmp_path / "pipeline.py").write_text("print('not ours')")
    assert run(python, ["-m", "pipeline"], env=elsewhere) == (0, "not ours\n", "")
