"""The two-headed network and its parts; import from the modules (this one imports nothing, to stay light)."""
