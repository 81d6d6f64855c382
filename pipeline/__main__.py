"""The command line: ``python -m pipeline STAGE --flag value ...``.

A stage is a module with a function ``run``; the names and types of its keyword-only parameters are the flags, a list
before them is what stands without a flag.
"""

from __future__ import annotations

import argparse
import inspect
import logging
import shlex
import sys
import typing
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel

from pipeline import __version__
from pipeline.base.errors import Stopped, error_line, user_error
from pipeline.runtime.limits import cores
from pipeline.runtime.logs import start_logging
from pipeline.runtime.signals import stopped_in_order
from pipeline.runtime.threads import threads_in, use_threads
from pipeline.settings.stages import parse_stage_config

STAGES = {
    "tile": "pipeline.stages.tile",
    "weigh": "pipeline.stages.weigh",
    "train": "pipeline.stages.train",
    "validate": "pipeline.stages.validate",
    "combine": "pipeline.stages.combine",
    "predict": "pipeline.stages.predict",
    "stitch": "pipeline.stages.stitch",
    "objects": "pipeline.stages.objects",
    "inspect": "pipeline.stages.inspect",
    "evaluate": "pipeline.stages.evaluate",
    "verify": "pipeline.stages.verify",
    "report": "pipeline.stages.report",
}
# What a user types; the workflow runs the stages.
COMMANDS = STAGES | {
    "crate": "pipeline.commands.crate",
    "estimate": "pipeline.commands.estimate",
    "explain": "pipeline.commands.explain",
    "export": "pipeline.commands.export",
    "find-lr": "pipeline.commands.find_lr",
    "models": "pipeline.commands.models",
    "view": "pipeline.commands.view",
}

log = logging.getLogger("pipeline")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return 0, or 1 after a line that says what the user can mend."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] not in COMMANDS:
        _root_parser().parse_args(words)  # --help and --version end here, anything else is an error
    stage = words[0]
    start_logging()
    use_threads(threads_in(words) or (1 if stage in STAGES else cores()))  # before a library looks how many there are
    try:
        with stopped_in_order():
            log.info("slidemill %s: python -m pipeline %s", __version__, shlex.join(words))
            run = import_module(COMMANDS[stage]).run
            flags = vars(stage_parser(stage, run).parse_args(words[1:]))
            run(**_values(run, flags))
    except (Exception, Stopped) as error:
        reason = user_error(error)
        if reason is None:
            raise
        print(error_line(stage, reason), file=sys.stderr)
        return 1
    return 0


def stage_parser(stage: str, run: Callable[..., None]) -> argparse.ArgumentParser:
    """Return the parser of a stage: one flag per parameter of ``run``."""
    parser = argparse.ArgumentParser(
        prog=f"python -m pipeline {stage}", description=inspect.getdoc(run), allow_abbrev=False
    )
    for name, kind in _parameters(run).items():
        default = inspect.signature(run).parameters[name].default
        if inspect.signature(run).parameters[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            parser.add_argument(name, nargs="+", type=kind, metavar=name.upper())
            continue
        required = default is inspect.Parameter.empty
        several = typing.get_origin(typing.get_type_hints(run)[name]) is list
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            required=required,
            nargs="+" if several else None,
            default=None if required else default,
            type=kind if kind in (int, str, Path) else str,
            metavar="JSON" if issubclass(kind, BaseModel) else kind.__name__.upper(),
        )
    return parser


def _root_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline", description="Run one stage of Slidemill by hand.")
    parser.add_argument("--version", action="version", version=f"slidemill {__version__}")
    parser.add_argument("stage", choices=COMMANDS, help="what to do; each has a --help of its own")
    return parser


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


def _end(status: int) -> NoReturn:
    """End the process; what libraries say of work that they had to drop would hide the reason."""
    if status:
        logging.disable()
        warnings.simplefilter("ignore")
        sys.unraisablehook = lambda _: None
    sys.exit(status)


if __name__ == "__main__":
    _end(main())
