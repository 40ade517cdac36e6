"""What the probe runs inside of a container. Its text is handed to whatever Python 3.8 or later is there, so it imports
nothing of ours.

It starts NVML and the CUDA driver as a server does, tries the folder that it is given, and writes lines of JSON, each
behind a mark. https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__INITIALIZE.html
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
from pathlib import Path

MARK = "nimctl-probe "


def nvml() -> dict[str, object]:
    """The UUIDs that NVML lists, or why there are none."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError as problem:
        return {"error": str(problem), "uuids": []}
    library.nvmlErrorString.restype = ctypes.c_char_p
    uuids: list[str] = []
    code = library.nvmlInit_v2()
    if code:
        return {"error": library.nvmlErrorString(code).decode(), "uuids": uuids}
    count, device, text = ctypes.c_uint(), ctypes.c_void_p(), ctypes.create_string_buffer(96)
    library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    wrong = None
    for index in range(count.value):
        code = library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device))
        code = code or library.nvmlDeviceGetUUID(device, text, 96)
        if code:
            wrong = f"GPU {index}: {library.nvmlErrorString(code).decode()}"
        else:
            uuids.append(text.value.decode())
    return {"error": wrong, "uuids": uuids}


def cuda() -> dict[str, int] | None:
    """The code of cuInit and the number of devices; None where no CUDA driver library is there."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count = ctypes.c_int()
    code = library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count))
    return {"code": code, "count": count.value}


def cache(folder: str) -> str | None:
    """Why no file can be made, renamed and removed in the folder; empty when it can. None: there is no such folder."""
    if not Path(folder).is_dir():
        return None
    first = Path(folder) / f".nimctl-probe-{os.urandom(8).hex()}"
    second, step = first.with_suffix(".renamed"), "make"
    try:
        first.write_bytes(b"probe")
        step = "rename"
        first.rename(second)
        step = "remove"
        second.unlink()
    except OSError as problem:
        for left in (first, second):
            with contextlib.suppress(OSError):
                left.unlink()
        return f"{step}: {problem.strerror}"
    return ""


def _say(name: str, value: object) -> None:
    sys.stdout.write(MARK + json.dumps({name: value}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # The folder first: a driver that hangs must not hide what is known already.
    _say("cache", cache(sys.argv[1]))
    _say("nvml", nvml())
    _say("cuda", cuda())
