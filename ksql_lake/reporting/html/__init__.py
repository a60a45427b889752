"""The lake as one web page without scripts of others."""
