"""Moving bytes: `run` is the pool of connections, `schedule` and `limit` decide what and how many.

`partial` is one file on its way, `blocks` is how the disk is written, `meter` how it is told.
"""
