"""Training with Ray Train: DDP workers around the training loop, whose state survives them.

`job` starts the workers, `decoding` has images on their nodes before, `telling` shows how it goes.
It may import every floor below `raygrad.engine`.

Read first: `job.py`.
"""
