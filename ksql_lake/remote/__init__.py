"""The lake's second home: what goes there, what leaves this disk, what comes back, and what is deleted there.

`plans` decides (pure functions of the metadata and the day), `turn` carries out under a feed's lock, `mirror` keeps the
remote's own copy of the metadata, `restore` makes a lake from a remote alone, `audit` compares the two. The local
metadata are the truth, and every step leaves a state from which the same command goes on:

    upload files -> commit here -> swap the remote's metadata -> delete what these no longer name -> commit here

May import base, model, sources and store. Nothing else deletes or uploads an object.
"""
