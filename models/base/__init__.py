"""The base of all networks: interface, geometry, measured context and cost, and what makes prediction faster.

Architectures are in the folder above, their common layers in :mod:`models.layers`.
"""
