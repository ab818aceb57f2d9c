"""Blur kernels on arrays; import from the modules."""
