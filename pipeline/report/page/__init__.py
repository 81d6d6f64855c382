"""The review page: one HTML file that loads nothing else, and escapes all names since they are data.

Rows, pictures and figures go in, HTML comes out. Failed samples, tables and figures are readable without JavaScript.
"""
