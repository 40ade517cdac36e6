"""The cellar: what the host side and the container share. Imports nothing of nimctl above it."""
