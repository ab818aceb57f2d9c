"""RGB-D sources: one file per data set behind the `RgbdSource` protocol of `base`."""
