"""The only floor that imports Ray: adapters from stages to Ray Train, Ray Data and Ray Tune.

`score/` is a Ray Data job, `train/` a Ray Train job, `sweep/` a Ray Tune job; `session` starts or
joins Ray, `workers/` forks the processes of its own, `relay` brings progress to the driver,
`parallel` maps a function over tasks. What is computed stands in the floors below, so that this one
only says where it runs.

Read first: `session.py`, then `score/job.py`.
"""
