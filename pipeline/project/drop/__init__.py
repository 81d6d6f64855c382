"""The drop folder: which files are samples, which wait or are refused, and which are of no use.

Folders and settings go in. Samples come out, each with its slide, its reference, and the size and time of both.
"""
