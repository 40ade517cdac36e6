"""Looking after what the cache holds: `inventory` lists, `verify` hashes, `repair` mends, `prune` removes."""
