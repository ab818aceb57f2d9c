"""The format on disk: Zarr v3 groups of sharded arrays, written shard by shard, readable by any Zarr library."""
