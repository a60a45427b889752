"""Plain typed values: feeds, columns, types, partitions, coverage, checks, conditions on rows.

Owns no file of a lake, but the feed files that people write (`feeds`), and asks no server. May import base.
"""
