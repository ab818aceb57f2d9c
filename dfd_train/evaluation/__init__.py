"""Scores, tables and reports; import from the modules."""
