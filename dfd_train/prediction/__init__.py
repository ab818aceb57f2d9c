"""Photographs in, pictures and depth out; import from the modules."""
