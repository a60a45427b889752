"""One feed's turn: its lock, its source read, what is new staged and committed.

May import every room but reporting and cli.
"""
