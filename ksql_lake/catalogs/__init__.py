"""Who else is told of the lake: SQL for other systems, AWS Glue.

Reads metadata, never changes a lake. May import base, model, sources, store and quality.
"""
