"""A project folder: its samples, sample sheets, batches and training pairs, and the configuration of each job.

Settings and a folder go in, names and paths come out. The Snakefile imports it: it must not open an image.
"""
