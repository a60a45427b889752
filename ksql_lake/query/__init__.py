"""Reads a feed as one table, now or as it was; compares versions; calculates column statistics.

Reads only. May import base, model, sources, store and quality; neither maintain nor catalogs.
"""
