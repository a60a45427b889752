"""Where files are kept and how changes are made: metadata, commit journal, state log, Parquet files, trash, history.

`layout` and `dataset` say where things lie, a `storage` (`local_disk`) reads and changes them, `journal` makes a change
whole by one swap of the metadata. No other room joins a path of the lake or opens one of its files: it takes a place
from a Dataset or the layout and hands it to the storage.

May import base and model. Nothing outside this room decides how a commit is made.
"""
