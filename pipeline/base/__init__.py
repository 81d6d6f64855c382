"""What every other room uses; it imports none of them.

Errors that a user can fix, paths of results, atomic writing of files, arrays larger than memory, colours of classes.
"""
