"""A lake's second home: a bucket of S3 or a container of Azure Blob, behind ten verbs.

`seam` says what an object store must do and how it fails, `s3` and `azure` do it, `address` reads the setting
REMOTE, `connect` opens the one that it names, `marker` binds a remote to one lake. The cloud libraries are optional
and loaded only when a store is opened. Knows no feed and no metadata: what moves when is decided in `maintain`.
"""
