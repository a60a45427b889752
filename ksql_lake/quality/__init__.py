"""Runs a feed's checks: rules bound to columns, verdicts, and the quarantine for rows that failed one.

May import base, model, sources and store.
"""
