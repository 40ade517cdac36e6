"""The looks at the host, one module for each part of it. They read and never judge; what cannot be seen is None."""
