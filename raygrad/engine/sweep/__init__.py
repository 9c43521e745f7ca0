"""Retraining sweeps with Ray Tune: one trial a subset, packed by what each takes.

`job` runs the grid, `packing` says how many trials fit, `trial_process` is what happens in one,
`group` makes a trial of several processes, `calibrate` measures rates for a plan. It may import
every floor below `raygrad.engine`.

Read first: `job.py`.
"""
