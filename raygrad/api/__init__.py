"""raygrad from Python, for notebooks and scripts: what `import raygrad` offers.

`in_memory` scores a data set that is at hand, without a run folder and without Ray; `run` is a run
folder with all its stages. `settings` makes of what a caller names the configuration of a stage:
the commands do it by the same functions, so that both do the same. It stands below the command and
above the pipeline.

Read first: `run.py`.
"""
