"""The jobs of the workflow: files in, files out, one module for each.

Each module has a function ``run`` whose parameters are the flags: ``slidemill STAGE --help``.
"""
