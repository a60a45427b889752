"""The lake for other systems: Glue and Hive metastores, Delta Lake, SQL text.

`catalog.py` is the seam (`apply` a change, `rebuild` a feed) and `targets.py` the table of the kinds there are. Reads
metadata, never changes a lake. May import base, model, sources, store and quality.
"""
