"""From tables to pictures and one HTML page."""

from raygrad.report.report import write_report
from raygrad.report.results import summary_rows

__all__ = ["summary_rows", "write_report"]
