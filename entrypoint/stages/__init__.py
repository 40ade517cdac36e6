"""The stages of a start, one module each. Each does its work and returns what the next ones need.

They run beside the supervisor's thread. Whatever fails is a NimctlError; whoever waits asks whether it is still wanted.
"""
