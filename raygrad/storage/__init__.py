"""Bytes anywhere: a local disk or S3, read, listed and written whole or not at all.

It knows nothing of images, shards or runs: URLs go in, bytes come out. An outage is waited for
here, so that no floor above has to. It may import `raygrad.errors` alone.

Read first: `files.py`, the one layer that every other floor reads and writes through.
"""
