"""The export of a table: a complete snapshot by a pull query, or its changelog folded to the latest rows."""
