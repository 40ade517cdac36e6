"""Locks on behalf of verbs: what is here becomes a lock, and a lock the plan of exactly what it says."""
