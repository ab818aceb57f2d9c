"""Explicit SIMD vectors for the blur; import from the modules."""
