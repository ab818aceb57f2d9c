"""One reader for each file format; import from the modules."""
