"""The paper's tables in one command; import from the modules."""
