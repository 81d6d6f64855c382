"""Objects of networks that find them one by one: found in windows, stored, merged across windows, and painted.

Detections of windows go in; class map, object ids and a score of each object come out, the same for any tiles as far as
the network finds the same.
"""
