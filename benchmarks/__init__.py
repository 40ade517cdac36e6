"""One script a claim; each runs our program and its peer alternately and prints the ratio."""
