"""Apache Iceberg tables over the files of feeds that count microseconds: which files belong to one (plan), and
how they are registered with a REST or an SQL catalog (catalog)."""
