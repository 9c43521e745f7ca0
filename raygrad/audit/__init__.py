"""What is wrong with a data set, from arrays alone: labels, repeats, outliers, what can go.

A room beside `scoring` and `selection`, which knows no files, no images' formats and no Ray: arrays
in, arrays out, so that each definition stands next to its brute-force oracle. It uses numpy, scipy
and torch, and of raygrad `raygrad.errors` alone. The stage that reads a data set and writes the
tables is `raygrad.pipeline.auditing`.

Read first: `confident.py`.
"""
