"""From a source and a lens to a finished store; import from the modules."""
