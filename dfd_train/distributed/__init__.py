"""Devices and processes; import from the modules."""
