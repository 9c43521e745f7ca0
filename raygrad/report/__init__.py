"""From tables to pictures and one HTML page.

`tables` reads what a run has, `results` and `findings` compute, `figures/` draws, `page` writes.
Numbers come first, drawing second, and each figure leaves a CSV beside it. It may import
`raygrad.training` and what is below it.

Read first: `report.py`.
"""

from raygrad.report.report import write_report
from raygrad.report.results import summary_rows

__all__ = ["summary_rows", "write_report"]
