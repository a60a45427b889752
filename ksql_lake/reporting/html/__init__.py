"""The lake as one web page without third-party scripts."""
