"""Class maps become objects: components, watershed, cleaning, tables, outlines, mask files.

Labels larger than memory go in, block by block; results are those of the whole image, whatever the blocks.
"""
