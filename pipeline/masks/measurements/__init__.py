"""Measurements of each object: shape, intensity, stains, neighbours; what each is called and how it is computed.

An :class:`~pipeline.masks.object_table.ObjectTable`, the ids and the slide go in, columns of the table of objects come
out. They are those of the whole image, read block by block.
"""
