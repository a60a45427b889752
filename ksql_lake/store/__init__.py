"""Where files are kept and how changes are made: metadata, commit journal, state log, Parquet files, trash, history.

May import base and model. Nothing outside this room decides how a commit is made.
"""
