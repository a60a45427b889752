"""The commands of the scripts.

`feeds/` has one module for each command of manage_feeds.py, `metadata/` one for each of metadata_utils.py; the modules
beside them are the exporter's and what several commands share. The only room that imports data_lake_config; may
import every other room.
"""
