"""Turn class maps into objects: components, watershed, cleaning, tables, outlines, mask files.

Class maps larger than memory are processed in blocks; the results equal those of the whole image.
"""
