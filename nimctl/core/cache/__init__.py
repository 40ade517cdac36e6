"""The cache folder: its paths, the probe that it can be written, and the repair of its ownership.

One folder is shared by containers of any user id. What makes that work is the group: the container's user is always
`uid:0`, folders are group 0 with mode 2770 (the setgid bit hands the group down) and the umask is 0002. A sticky bit
breaks it: with `chmod a+rwxt` a second uid can neither replace nor delete what the first one left.
"""

from nimctl.core.cache.init import Action, InitReport, apply_init, plan_init
from nimctl.core.cache.paths import (
    FILE_MODE,
    FOLDER_MODE,
    PRIVATE_MODE,
    UMASK,
    CachePaths,
    Part,
    RepoPaths,
    make_shared_folder,
    open_shared,
)
from nimctl.core.cache.probe import probe_writable
from nimctl.core.cache.problems import free_bytes, storage_error

__all__ = [
    "FILE_MODE",
    "FOLDER_MODE",
    "PRIVATE_MODE",
    "UMASK",
    "Action",
    "CachePaths",
    "InitReport",
    "Part",
    "RepoPaths",
    "apply_init",
    "free_bytes",
    "make_shared_folder",
    "open_shared",
    "plan_init",
    "probe_writable",
    "storage_error",
]
