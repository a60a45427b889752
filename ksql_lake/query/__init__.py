"""A feed as one table, now or as it was; two versions compared; figures of columns.

Reads only. May import base, model, sources, store and quality; neither maintain nor catalogs.
"""
