"""Reports: plain data for other programs, tables for terminals."""

from onnxprune.report.build import Report, build_report

__all__ = ["Report", "build_report"]
