"""Procedural scenes, rendered with their depth; import from the modules."""
