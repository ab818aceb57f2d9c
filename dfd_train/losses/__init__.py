"""What training minimises; import from the modules."""
