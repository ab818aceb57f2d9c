"""Configurations of a run, free of torch; import from the modules."""
