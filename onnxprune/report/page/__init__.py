"""Parts that every HTML page of a report is made of: one file, no network, dark and light, down to phone width."""

from onnxprune.report.page.parts import Cell, Column, document, number, pill, table, text, tiles

__all__ = ["Cell", "Column", "document", "number", "pill", "table", "text", "tiles"]
