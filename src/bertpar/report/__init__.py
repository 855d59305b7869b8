"""The report of a sweep: one HTML page that holds everything it shows, readable without scripts or a network."""

from bertpar.report.contents import Contents
from bertpar.report.gather import gather
from bertpar.report.page import render

REPORT_NAME = "report.html"
"""Of the artifact in the sweep's own MLflow run."""

__all__ = ["REPORT_NAME", "Contents", "gather", "render"]
