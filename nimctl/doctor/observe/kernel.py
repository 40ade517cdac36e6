"""NVIDIA's devices and modules as the kernel shows them, and what lies between GPUs on the PCI bus."""

from pathlib import Path

from nimctl.core.facts import IommuFacts, NvidiaKernelFacts


def look_at_nvidia_kernel(root: Path = Path("/")) -> NvidiaKernelFacts:
    """Modules, PCI devices and device nodes below `root`."""
    return NvidiaKernelFacts()


def look_at_iommu(root: Path = Path("/")) -> IommuFacts:
    """Whether DMA between GPUs is translated, or turned back by a bridge."""
    return IommuFacts()
