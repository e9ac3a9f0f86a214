"""How a manifest and its shards look on storage."""
