"""Image files become pixels: (channel, row, column) arrays on one grid, read by region.

A path and the section ``image`` of the configuration go in. Label images and outlines are read on the same grid.
"""
