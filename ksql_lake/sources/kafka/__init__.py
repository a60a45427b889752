"""Reads the rows of a stream directly from its Kafka topic: as ksqlDB would decode each record, up to the topic's end.

Decoding (`formats`, `records` and what they use) needs no Kafka library; only `topic` talks to brokers.
"""
