"""The export of a stream: which rows are new, when it has been read to its end, and where its rows go."""
