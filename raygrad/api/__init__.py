"""raygrad from Python, for notebooks and scripts: what `import raygrad` offers.

`in_memory` scores a data set that is at hand, without a run folder and without Ray. It stands below
the command and above the pipeline.

Read first: `in_memory.py`.
"""
