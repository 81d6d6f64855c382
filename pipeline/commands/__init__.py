"""Commands that a user types; the workflow does not run them.

Each module has a function ``run`` whose parameters are the flags: ``slidemill COMMAND --help``.
"""
