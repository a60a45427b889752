"""What every room stands on: errors, atomic files and locks, the native library, back-off, numbers as text.

Imports nothing of ksql_lake.
"""
