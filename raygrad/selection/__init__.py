"""Subsets from scores, in numpy."""
