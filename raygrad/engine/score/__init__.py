"""Scoring a data set with Ray Data: every shard once, whatever dies, one committed part a shard.

The driver (`job`) sends one row a shard to a `pool` of actors; an `actor` reads and decodes ahead
(`batches`), scores (`networks`, within `memory`) and commits. `task` is what both sides say to each
other, `board` what they know of each other. It may import every floor below `raygrad.engine`.

Read first: `job.py`.
"""
