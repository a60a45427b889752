"""A table: a whole snapshot by a pull query, or its changelog folded to the latest rows."""
