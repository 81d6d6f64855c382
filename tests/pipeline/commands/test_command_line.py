"""The command line: help for every flag, wrong words, exit status, and the console script ``slidemill``."""

import inspect
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from pipeline.__main__ import COMMANDS, documented, main

SCRIPT = "import sys; sys.argv[0] = '/bin/slidemill'; from pipeline.__main__ import run_and_exit; run_and_exit()"


def run(*words, code=SCRIPT):
    """Run the console script in a process of its own."""
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_has_a_sentence_for_every_flag(name):
    run = import_module(COMMANDS[name]).run
    description, sentences = documented(run)
    assert sentences.keys() == inspect.signature(run).parameters.keys()
    assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in [description, *sentences.values()])


def test_the_help_of_a_command_shows_units_and_defaults(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["view", "--help"])
    shown, errors = capsys.readouterr()
    assert "--memory-mb INT Largest piece of an image to hold, in MB. Default: 4000." in " ".join(shown.split())
    assert not errors


def test_the_list_of_commands_loads_no_torch():
    code = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); " + SCRIPT
    done = run("--help", code=code)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: slidemill ")
    assert done.stdout.endswith("\nFalse\n")
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


def test_pyproject_names_the_console_script():
    scripts = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["scripts"]
    assert callable(EntryPoint("slidemill", scripts["slidemill"], "console_scripts").load())


def test_the_console_script_logs_its_command_and_ends_with_the_status(tmp_path):
    done = run("export", "--to", "csv", "--output", str(tmp_path))
    assert done.returncode == 1
    first, *_, last = done.stderr.splitlines()
    assert f": slidemill export --to csv --output {tmp_path}" in first
    assert last.startswith(f"error: export: {tmp_path}: ")


@pytest.mark.parametrize("words", [[], ["tilt"], ["tile", "--unknown", "1"], ["tile"]])
def test_wrong_words_are_an_error(words):
    done = run(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert words or "\n  tile " in done.stderr
