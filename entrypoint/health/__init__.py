"""Whether the service works: asked of itself through the public port."""
