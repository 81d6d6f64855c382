"""The process and the machine: devices, threads, limits of memory and cores, signals, temporary arrays on disk.

What goes in is a flag or a setting, what comes out is what this process may use. Nothing here knows of images.
"""
