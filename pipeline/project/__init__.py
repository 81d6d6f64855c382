"""What lies in a project folder: samples, sample sheets, batches, training pairs, and what each job is told.

The settings and a folder go in, names and paths come out. The Snakefile asks here, so no image is opened.
"""
