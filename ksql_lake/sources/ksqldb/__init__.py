"""Rows over the REST API of ksqlDB: the client, HTTP bodies, and rows decoded from them."""
