"""Turn class maps into objects: components, watershed, cleaning, tables, outlines, mask files.

Class maps larger than memory go in, block by block; results are those of the whole image, whatever the blocks.
"""
