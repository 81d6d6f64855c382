"""The schema of the configuration: every setting with its type, default, limits and meaning.

A YAML file goes in, frozen settings come out, or one error that names the key. Nothing here knows the paths of results.
"""
