"""Hosts that people met: situations from public threads, each with what the doctor must say of it.

`situations/*.yaml` holds them as the few facts in which each differs from a healthy machine of its family (`bases`),
`saved/*.json` some of them whole, as `nimctl doctor --save-facts` writes them.
"""
