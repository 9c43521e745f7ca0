"""What a run folder holds, and how each of its files is written and read back.

`layout` names every place; `score_table`, `subsets` and `result_rows` are the tables that stages
leave; `journal` tells when they worked. It may import `raygrad.data` and what is below it.

Read first: `layout.py`.
"""
