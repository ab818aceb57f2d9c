"""Solids, rays, light and exposure: a scene as a picture and its depth; import from the modules."""
