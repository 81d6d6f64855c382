"""What `slidemill export` writes: the results of chosen samples as one file for other programs.

Each writer takes the file to write and a :class:`pipeline.report.exports.selection.Selection`. A new one is a function
here and a line of the table in `pipeline/commands/export.py`.
"""
