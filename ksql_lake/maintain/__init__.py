"""What happens to data that is already in the lake: retention, versions, compaction, erasure, verification, rebuilding.

May import base, model, sources, store, quality and remote; neither query nor catalogs.
"""
