"""What finished steps say: curves, tables and findings, as a page."""

from cdal.benchmark.report.ablation import write_ablation
from cdal.benchmark.report.page import write_report

__all__ = ["write_ablation", "write_report"]
