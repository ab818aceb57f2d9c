"""The training loop; import from the modules."""
