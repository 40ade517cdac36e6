"""The NVML double: `libnvidia-ml.so.1` written in C, and the hosts it can pretend to be."""
