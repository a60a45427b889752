"""The export of one feed: lock it, read its source, stage and commit what is new.

May import every room but reporting and cli.
"""
