"""The report on all samples of a project: state of each, tables, statistics, figures and the review page.

Result files go in; rows, pictures and HTML come out.
"""
