"""What the scripts say and ask: one module for each group of commands.

The only room that imports data_lake_config; may import every other room.
"""
