"""Annotated slides become batches of augmented patches, and boundary weight maps.

Patch number i follows from the seed and i alone, so that an interrupted training sees the same patches.
"""
