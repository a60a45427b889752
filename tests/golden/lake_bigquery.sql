-- Give a dataset: bq query --dataset_id=... Run again after each export of a table.

CREATE OR REPLACE EXTERNAL TABLE `all_types`
WITH PARTITION COLUMNS (year INT64, month INT64, day INT64)
OPTIONS (
  format = 'PARQUET',
  uris = ['gs://bucket/lake/streams/all_types/*.parquet'],
  hive_partition_uri_prefix = 'gs://bucket/lake/streams/all_types',
  require_hive_partition_filter = false,
  enable_list_inference = true
);

-- empty: no file yet

CREATE OR REPLACE EXTERNAL TABLE `events`
WITH PARTITION COLUMNS (year INT64, month INT64, day INT64)
OPTIONS (
  format = 'PARQUET',
  uris = ['gs://bucket/lake/streams/events/*.parquet'],
  hive_partition_uri_prefix = 'gs://bucket/lake/streams/events',
  require_hive_partition_filter = false,
  enable_list_inference = true
);

CREATE OR REPLACE EXTERNAL TABLE `t_totals`
OPTIONS (
  format = 'PARQUET',
  uris = ['gs://bucket/lake/tables/t.totals/version=v2/*.parquet'],
  enable_list_inference = true
);
