"""The lens in torch: blur, cameras, deconvolution; import from the modules."""
