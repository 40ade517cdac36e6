"""The engine: which model on which layout, how it is started, and what it says while it loads."""
