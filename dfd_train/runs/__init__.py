"""A run's folder and its checkpoints; import from the modules."""
