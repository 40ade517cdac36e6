"""Signatures on behalf of verbs: what is found, what is kept, and what a rule makes of it."""
