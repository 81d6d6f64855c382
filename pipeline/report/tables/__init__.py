"""Tables of the report beside that of all metrics: models, cohort, folds, classes of each slide, objects, columns.

Outcomes of samples and the table of all metrics go in, tables come out. docs/results.md shows how they are read.
"""
