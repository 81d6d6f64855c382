"""Slidemill: the stages of the workflow, and the libraries under them. Importing this loads nothing heavy."""

import os
import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    # `python -m pipeline` looks for modules in the current folder first: the project, where a user may have a torch.py
    sys.path[0] = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("slidemill")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"
