"""The stages: verbs, files in and files out. They do not import each other; they meet in files."""
