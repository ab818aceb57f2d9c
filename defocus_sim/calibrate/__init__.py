"""A lens measured from photographs: how much the sharp one must be blurred, over depth; import from the modules."""
