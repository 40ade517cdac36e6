"""Tools of the tests that are worth testing themselves: the lab and the NVML double."""
