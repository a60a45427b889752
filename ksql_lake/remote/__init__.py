"""The lake's remote: what is uploaded, what leaves this disk, what comes back, and what is deleted there.

`plans` decides (pure functions of the metadata and the day), `turn` carries out under a feed's lock, `mirror` keeps the
remote's own copy of the metadata, `restore` makes a lake from a remote alone, `audit` compares the two. The local
metadata is the truth, and after every step the same command can continue:

    upload files -> commit here -> swap the remote's metadata -> delete what it no longer lists -> commit here

May import base, model, sources and store. Nothing else deletes or uploads an object.
"""
