"""Rows of a stream straight from its Kafka topic: what ksqlDB would make of each record, and where a topic ends.

Decoding (`formats`, `records` and what they use) needs no Kafka library; only `topic` talks to brokers.
"""
