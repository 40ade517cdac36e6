"""Where weights come from: one module for each kind of source, and what several of them share.

`hub` (hf://), `ngc`, `objectstore` (s3://, gs://), `mirror` (https://), `folder` and `builtin`; `override` puts a
mirror in the place of any remote one. Shared: `cached` decides when the cache is enough, `listing` and `selection`
which files are wanted, `checksums` and `integrity` what can be said about them.
"""
