"""Images and shards: from what people have to an index, and from the index to pixels.

`shard_scan` reads a shard's headers, `index` holds one row an example, `reading` and `streaming`
give examples back by their rows, `decode` makes pixels of bytes. It may import `raygrad.storage`,
and `raygrad.selection` for the random numbers that belong to keys.

Read first: `index.py`.
"""
