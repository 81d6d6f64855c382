"""Slidemill: the stages of the workflow, and the libraries under them. Importing this loads nothing heavy."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("slidemill")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"
