-- Run again after each export for new partitions. For a column that was added since: drop the table (an external table's files stay) and run this again.
-- Also drop, once, a table made by an earlier version: its rows would be counted twice where SHOW PARTITIONS
-- says month=1 instead of month=01, and it takes no new versions where version is an int.

CREATE TABLE IF NOT EXISTS `all_types` (
  `ROWTIME` timestamp,
  `ROWPARTITION` int,
  `ROWOFFSET` bigint,
  `ID` string,
  `B` boolean,
  `I` int,
  `L` bigint,
  `D` double,
  `DEC` decimal(38,18),
  `BYT` binary,
  `DT` date,
  `TM` int,
  `TS` timestamp,
  `A` array<bigint>,
  `M` map<string,int>,
  `S` struct<X:bigint,`b c`:decimal(4,2),`date`:date,N:struct<`IN`:array<string>>>,
  `DAY_` string,
  `LATE` int,
  `year` string,
  `month` string,
  `day` string
)
USING PARQUET
PARTITIONED BY (`year`, `month`, `day`)
LOCATION 's3a://bucket/lake/streams/all_types/';
ALTER TABLE `all_types` ADD IF NOT EXISTS
  PARTITION (year = '2025', month = '01', day = '15') LOCATION 's3a://bucket/lake/streams/all_types/year=2025/month=01/day=15/'
  PARTITION (year = '2025', month = '01', day = '16') LOCATION 's3a://bucket/lake/streams/all_types/year=2025/month=01/day=16/';

-- empty: no file yet

CREATE TABLE IF NOT EXISTS `events` (
  `ROWTIME` timestamp,
  `ROWPARTITION` int,
  `ROWOFFSET` bigint,
  `ID` string,
  `AMOUNT` decimal(12,2),
  `N` bigint,
  `year` string,
  `month` string,
  `day` string
)
USING PARQUET
PARTITIONED BY (`year`, `month`, `day`)
LOCATION 's3a://bucket/lake/streams/events/';
ALTER TABLE `events` ADD IF NOT EXISTS
  PARTITION (year = '2025', month = '01', day = '15') LOCATION 's3a://bucket/lake/streams/events/year=2025/month=01/day=15/'
  PARTITION (year = '2025', month = '01', day = '16') LOCATION 's3a://bucket/lake/streams/events/year=2025/month=01/day=16/'
  PARTITION (year = '2025', month = '01', day = '17') LOCATION 's3a://bucket/lake/streams/events/year=2025/month=01/day=17/';

CREATE TABLE IF NOT EXISTS `t_totals_versions` (
  `K` string,
  `TOTAL` decimal(12,2),
  `version` string
)
USING PARQUET
PARTITIONED BY (`version`)
LOCATION 's3a://bucket/lake/tables/t.totals/';
ALTER TABLE `t_totals_versions` ADD IF NOT EXISTS
  PARTITION (version = 'v1') LOCATION 's3a://bucket/lake/tables/t.totals/version=v1/'
  PARTITION (version = 'v2') LOCATION 's3a://bucket/lake/tables/t.totals/version=v2/';
CREATE OR REPLACE VIEW `t_totals` AS
SELECT * FROM `t_totals_versions` WHERE version = 'v2';
