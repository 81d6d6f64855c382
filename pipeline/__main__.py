"""The command line: ``slidemill COMMAND --flag value ...``, or ``python -m pipeline`` for the same.

A stage or command is a module with a function ``run``. Its keyword-only parameters are the flags, a list before them is
given without a flag, and the section Parameters of its docstring is the help.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import logging
import os
import re
import shlex
import sys
import typing
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel

from pipeline import __version__
from pipeline.base.errors import SlidemillError, Stopped, error_line, user_error
from pipeline.runtime.job_limits import cores
from pipeline.runtime.logs import start_logging
from pipeline.runtime.signals import stopped_in_order
from pipeline.runtime.threads import threads_in, use_threads
from pipeline.settings.stage_sections import parse_stage_config

# Stages are run by the workflow in about this order, commands are typed by a user.
_STAGES = "tile weigh train validate combine predict stitch objects evaluate verify report finish"
_COMMANDS = "check crate estimate explain export find-lr init models view"
STAGES = {name: f"pipeline.stages.{name}" for name in _STAGES.split()}
COMMANDS = STAGES | {name: f"pipeline.commands.{name.replace('-', '_')}" for name in _COMMANDS.split()}

_OF_WORKFLOW = "stages, run by the workflow (verify only by `snakemake verification`)"
_JSON = " JSON text, normally written by the workflow; the first line of a job's log has the whole command to copy."

_DIRECTORY = "directory"

log = logging.getLogger("pipeline")


def main(arguments: list[str] | None = None) -> int:
    """Run one stage or command; return 0, or 1 after a line that says what the user can fix, or 2 after the help."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words:
        _root_parser().print_help(sys.stderr)
        return 2
    if words[0] not in COMMANDS:
        _root_parser().parse_args(words)  # --help and --version end here, anything else is an error
    stage = words[0]
    start_logging()
    use_threads(threads_in(words) or (1 if stage in STAGES else cores()))  # before a library counts the cores
    try:
        with stopped_in_order():
            if not {"-h", "--help"}.intersection(words):
                log.info("version %s: slidemill %s", __version__, shlex.join(words))
            run = import_module(COMMANDS[stage]).run
            flags = vars(stage_parser(stage, run).parse_args(words[1:]))
            _enter(flags.pop(_DIRECTORY), is_new=stage == "init")
            run(**_values(run, flags))
    except (Exception, Stopped) as error:
        reason = user_error(error)
        if reason is None:
            raise
        print(error_line(stage, reason), file=sys.stderr)
        return 1
    return 0


def _enter(directory: Path, *, is_new: bool) -> None:
    """Go to the folder of the project."""
    try:
        if is_new:
            directory.mkdir(parents=True, exist_ok=True)
        os.chdir(directory)
    except OSError as error:
        raise SlidemillError(f"--directory {directory}: {error.strerror}; name the folder of a project") from error


def run_and_exit() -> NoReturn:
    """Run the command of this process and exit; after a failure, libraries print nothing below the error."""
    status = main()
    if status:
        logging.disable()
        warnings.simplefilter("ignore")
        sys.unraisablehook = lambda _: None
    sys.exit(status)


def stage_parser(stage: str, run: Callable[..., None]) -> argparse.ArgumentParser:
    """Return the parser of a stage: one flag per parameter of ``run``."""
    description, meanings = documented(run)
    parser = argparse.ArgumentParser(
        prog=f"{_program()} {stage}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    about = "Folder of the project; other paths are relative to it. Default: the current folder."
    parser.add_argument("--directory", dest=_DIRECTORY, type=Path, default=Path(), metavar="FOLDER", help=about)
    parameters, hints = inspect.signature(run).parameters, typing.get_type_hints(run)
    for name, kind in _parameters(run).items():
        meaning, default = meanings[name].replace("%", "%%"), parameters[name].default
        if parameters[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            parser.add_argument(name, nargs="*", type=kind, metavar=name.upper(), help=meaning)
            continue
        required = default is inspect.Parameter.empty
        meaning += _JSON if required and issubclass(kind, BaseModel) else ""
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            required=required,
            nargs="+" if typing.get_origin(hints[name]) is list else None,
            default=None if required else default,
            type=kind if kind in (int, str, Path) else str,
            metavar="JSON" if issubclass(kind, BaseModel) else kind.__name__.upper(),
            help=meaning if required or default in (None, "") else f"{meaning} Default: %(default)s.",
        )
    return parser


def documented(run: Callable[..., None]) -> tuple[str, dict[str, str]]:
    """Return what the docstring of ``run`` says before its section Parameters, and in it of each parameter."""
    text, _, section = (inspect.getdoc(run) or "").replace("``", "`").partition("\n\nParameters\n----------\n")
    meanings: dict[str, str] = {}
    for names, meaning in re.findall(r"^(\w[\w, ]*) : .*\n((?: +.*(?:\n|$))+)", section, re.MULTILINE):
        meanings |= dict.fromkeys(names.split(", "), " ".join(meaning.split()))
    return text, meanings


def _root_parser() -> argparse.ArgumentParser:
    lines = []
    for title, names in ((_OF_WORKFLOW, STAGES), ("other commands", COMMANDS.keys() - STAGES.keys())):
        lines += ["", f"{title}:", *(f"  {name:10}{_summary(COMMANDS[name])}" for name in COMMANDS if name in names)]
    parser = argparse.ArgumentParser(
        prog=_program(),
        description="Run one stage or other command of Slidemill, in the project folder or with --directory.",
        epilog="\n".join(lines[1:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"slidemill {__version__}")
    parser.add_argument("stage", choices=COMMANDS, metavar="COMMAND", help="one of the list below; see COMMAND --help")
    return parser


def _program() -> str:
    return "slidemill" if Path(sys.argv[0]).stem == "slidemill" else "python -m pipeline"


def _summary(module: str) -> str:
    """Return the first sentence of a module, which is read and not imported: that would load torch."""
    spec = find_spec(module)
    text = Path(spec.origin).read_text("utf-8") if spec and spec.origin else ""
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0].replace("\n", " ")


def _parameters(run: Callable[..., None]) -> dict[str, type[Any]]:
    """Return the type of each parameter; of an optional one or a list, that of one value."""
    hints = typing.get_type_hints(run)
    return {name: (*typing.get_args(hints[name]), hints[name])[0] for name in inspect.signature(run).parameters}


def _values(run: Callable[..., None], flags: dict[str, Any]) -> dict[str, Any]:
    kinds = _parameters(run)
    return {
        name: parse_stage_config(kinds[name], value) if value and issubclass(kinds[name], BaseModel) else value
        for name, value in flags.items()
    }


if __name__ == "__main__":
    run_and_exit()
