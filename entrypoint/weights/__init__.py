"""The checkpoint on its way into the cache, and the cache folder as it is found."""
