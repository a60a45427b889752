"""Where files lie and how a change is made: metadata, the commit journal, the state log, Parquet files, trash, history.

May import base and model. Nothing outside this room decides how a commit is made.
"""
