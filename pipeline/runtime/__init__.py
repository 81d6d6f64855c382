"""The process and the machine: devices, threads, limits of memory and cores, signals, logs, arrays on disk."""
