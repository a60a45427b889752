"""The foundation of every room: errors, atomic files and locks, the native library, back-off, numbers as text.

Imports nothing of ksql_lake.
"""
