"""A lake's remote: an S3 bucket or an Azure Blob container, behind ten methods.

`seam` says what an object store must do and how it fails, `s3` and `azure` do it, `address` reads the setting
REMOTE, `connect` opens the one that it names, `marker` binds a remote to one lake. The cloud libraries are optional
and loaded only when a store is opened. What moves and when is decided in the room `remote`.
"""
