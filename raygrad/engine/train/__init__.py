"""Training with Ray Train: DDP workers around the training loop, whose state survives them.

`job` starts the workers, `state` keeps what a training needs to go on, `telling` shows how it goes.
It may import every floor below `raygrad.engine`.

Read first: `job.py`.
"""
