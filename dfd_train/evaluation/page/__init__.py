"""The report as one HTML page, and its charts; import from the modules."""
