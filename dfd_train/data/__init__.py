"""Shards -> batches on the device: epoch order, streaming and transforms."""
