"""All samples of a project: what became of each, tables, statistics, figures and the page to review them on.

Files of results go in, rows and pictures come out.
"""
