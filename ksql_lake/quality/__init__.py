"""A feed's checks at work: rules bound to columns, verdicts, and the quarantine for rows that failed one.

May import base, model, sources and store.
"""
