"""What the four scripts share: ksqlDB's bytes in, a data lake of Parquet files out.

One module, one noun; imports point down this list only:

    export, cluster                        the turn of one feed; the workers of a Dask cluster
    rebuild, reconcile                     metadata made again from footers and log; days counted at the source
    streams, tables, verify                one export, one check, start to end
    staged, compare                        what a reading left to be published; two versions of a table
    retention, versions, permissions       what is too old to stay; which version of a table is read; who may read
    erase, compact                         one person's rows, everywhere; small files of a day merged
    anchors, fold, keys                    what a stream's rows prove; a changelog's latest rows; a key that came twice
    trash                                  what was taken out, and back
    metadata                               _metadata.json and the commit journal
    writer, rows, ksqldb, retry            Parquet files; rows of an answer; the REST client; when to ask again
    native_rows, blocks                    plain rows by the megabyte: natively; by pyarrow
    partitions, types, body, feeds, pace   days and versions; types; HTTP bodies; feed files; the end of a query
    history                                one line for each run of each feed
    native                                 the native library, where it is built
    files, errors                          atomic writes and locks; the error family

Scripts import `data_lake_config` and this package; the config imports `errors`, and `native` to tell whether
it is there; this package imports neither scripts nor config: values are passed in.
"""

__version__ = "0.1.0"
