"""The process and the machine: devices, threads, limits of memory and cores, signals, temporary arrays on disk.

Flags and settings go in; what this process may use comes out. Nothing here knows about images.
"""
