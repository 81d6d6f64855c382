"""Image files become pixels: (channel, row, column) arrays, read by region.

A path and the section ``image`` of the configuration go in. Labels and outlines are read on the grid of their image.
"""
