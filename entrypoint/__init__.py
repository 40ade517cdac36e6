"""The container side: PID 1 that takes a checkpoint to a served, supervised OpenAI-compatible endpoint."""
