"""What every network is: its interface, its geometry and context, what it costs, and how it is made faster.

Architectures are in the folder above; what several of them are built from is in :mod:`models.layers`.
"""
