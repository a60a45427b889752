"""Where rows come from: one directory for each kind of source, and the clock that decides when one was read to its end.

May import base and model.
"""
