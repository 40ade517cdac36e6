"""What confines programs on this host."""

import re
from pathlib import Path
from typing import Literal

from nimctl.core.facts import SecurityFacts
from nimctl.doctor.observe.files import is_there, names, read

# The variable of UEFI's that says whether Secure Boot is on: 4 bytes of attributes, then 0 or 1.
# https://www.kernel.org/doc/html/latest/filesystems/efivarfs.html
_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
# Either of them lets containers use the device nodes of GPUs, which the policy otherwise keeps for X servers.
_DEVICES = ("container_use_devices", "container_use_xserver_devices")


def look_at_security(root: Path = Path("/")) -> SecurityFacts:
    """SELinux, AppArmor, Secure Boot and kernel lockdown, as files below `root` tell."""
    lockdown = re.search(r"\[(\w+)\]", read(root / "sys/kernel/security/lockdown") or "")
    return SecurityFacts(
        selinux=_selinux(root),
        selinux_devices=_selinux_devices(root / "sys/fs/selinux/booleans"),
        apparmor=_apparmor(root),
        secure_boot=_secure_boot(root),
        lockdown=lockdown[1] if lockdown else None,
    )


def _selinux(root: Path) -> Literal["enforcing", "permissive", "disabled"] | None:
    enforce = read(root / "sys/fs/selinux/enforce")
    if enforce in ("0", "1"):
        return "enforcing" if enforce == "1" else "permissive"
    filesystems = read(root / "proc/filesystems")
    if filesystems and "selinuxfs" not in filesystems.split():  # the kernel has none, or it was turned off at boot
        return "disabled"
    return None


def _selinux_devices(booleans: Path) -> bool | None:
    """Each of these files holds the value that is in force, and the one that waits to be committed."""
    values = [text.split()[0] for name in _DEVICES if (text := read(booleans / name))]
    return "1" in values if values else None


def _apparmor(root: Path) -> bool | None:
    enabled = read(root / "sys/module/apparmor/parameters/enabled")
    if enabled:
        return enabled == "Y"
    return False if names(root / "sys/module") and is_there(root / "sys/module/apparmor") is False else None


def _secure_boot(root: Path) -> bool | None:
    try:
        value = (root / _SECURE_BOOT).read_bytes()[:5]
    except OSError:
        # Without UEFI there is no Secure Boot. An empty folder says nothing: containers do not get to see this one.
        firmware = names(root / "sys/firmware")
        return False if firmware and "efi" not in firmware else None
    return value[4] == 1 if len(value) == 5 else None
