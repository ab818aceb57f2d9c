"""What the commands share; import from the modules."""
