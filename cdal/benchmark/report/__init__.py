"""The report of a simulation: curves, tables and findings on one page."""

from cdal.benchmark.report.ablation import write_ablation
from cdal.benchmark.report.figures import write_figure
from cdal.benchmark.report.page import write_report

__all__ = ["write_ablation", "write_figure", "write_report"]
