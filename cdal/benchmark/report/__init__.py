"""What finished steps say: curves, tables and findings, as a page."""

from cdal.benchmark.report.page import write_report
from cdal.benchmark.report.values import write_values

__all__ = ["write_report", "write_values"]
