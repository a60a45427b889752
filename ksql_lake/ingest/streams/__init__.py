"""A stream: which rows are new, when it is read to its end, and what becomes of them."""
