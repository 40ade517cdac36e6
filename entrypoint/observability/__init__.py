"""What is told of a run: log lines, the start's report."""
