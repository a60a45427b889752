"""Plain typed values: feeds, columns, types, partitions, coverage, checks, conditions on rows.

Owns no file of a lake and asks no server. May import base.
"""
