"""The jobs of a run: what each has to do, and what became of it.

In go the samples that the project has, and the settings; out come the jobs to do, and a ledger for each that is done.
"""
