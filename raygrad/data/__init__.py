"""Shards, index, decoding, storage and score tables."""
