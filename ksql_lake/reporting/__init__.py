"""Reports for people and monitors: a summary of each feed, findings, terminal, page, metrics, alerts.

May import every room but cli.
"""
