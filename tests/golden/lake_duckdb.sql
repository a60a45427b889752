-- Views follow the lake (new files, a table's current version); run again for columns that were added since.

CREATE OR REPLACE VIEW "all_types" AS
SELECT "ROWTIME", "ROWPARTITION", "ROWOFFSET", "ID", "B", "I", "L", "D", "DEC", "BYT", "DT", "TM", "TS", "A", "M", "S", "DAY_", "LATE", year, month, day
FROM read_parquet(
    's3://bucket/lake/streams/all_types/year=*/month=*/day=*/*.parquet',
    union_by_name = true, hive_partitioning = true, hive_types = {year: INTEGER, month: INTEGER, day: INTEGER}
);

-- empty: no file yet

CREATE OR REPLACE VIEW "events" AS
SELECT "ROWTIME", "ROWPARTITION", "ROWOFFSET", "ID", "AMOUNT", "N", year, month, day
FROM read_parquet(
    's3://bucket/lake/streams/events/year=*/month=*/day=*/*.parquet',
    union_by_name = true, hive_partitioning = true, hive_types = {year: INTEGER, month: INTEGER, day: INTEGER}
);

CREATE OR REPLACE VIEW "t.totals" AS
SELECT "K", "TOTAL", CAST(substr(version, 2) AS INTEGER) AS version
FROM read_parquet(
    's3://bucket/lake/tables/t.totals/version=*/*.parquet',
    union_by_name = true, hive_partitioning = true, hive_types = {version: VARCHAR}
)
WHERE version = (SELECT json_extract_string(content, '$.current.version') FROM read_text('s3://bucket/lake/tables/t.totals/_metadata.json'));
