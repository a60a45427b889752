"""A feed as a Delta Lake table: `_delta_log` beside its files, derived from the metadata and never a source of them.

`schema` has the feed's columns in Delta's types, `actions` are the lines of a version, `log` reads and adds versions,
`plan` decides what the next version holds, and `table` acts: sync, verify, rebuild, checkpoint.
"""
