"""`manage_feeds.py remote`: its verbs are in `cli/remote.py`."""

from ksql_lake.cli.remote import arguments

__all__ = ["arguments"]
