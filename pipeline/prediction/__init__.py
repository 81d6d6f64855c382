"""Windows of slides go through a network, and labels of whole slides come out.

Reading, batching, blending, writing, going on after an interruption; and how exact and how fast it was.
"""
