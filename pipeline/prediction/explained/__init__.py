"""What a network looks at on one slide, for the command ``explain``.

A network and an open slide go in; figures, and numbers in pixels of the slide, come out.
"""
