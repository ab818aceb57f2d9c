"""A page to refocus a photograph in a browser; import from the modules."""
