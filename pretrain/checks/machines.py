"""Machines with GPUs: what the doctor's estimate for many GPUs knows of them."""

from dataclasses import dataclass

from bert.training.flops import PEAK_FLOPS


@dataclass(frozen=True)
class Machine:
    gpu: str
    """its name in `PEAK_FLOPS`"""
    memory: float
    """bytes of a GPU"""
    link: float
    """bytes a second that a GPU sends to others of its machine, and receives at the same time"""
    network: float
    """bytes a second that a machine sends to others, all its adapters together"""
    gpus: int = 8

    @property
    def peak_flops(self) -> float:
        """bf16 operations a second of a GPU, by the data sheet."""
        return PEAK_FLOPS[self.gpu]


# NVIDIA's data sheets. NVLink has 600 (A100), 900 (H100, H200) and 1,800 GB/s (B200), both directions together. A DGX
# has eight adapters of 200 (A100) or 400 Gbit/s (H100, H200, B200).
A100_40GB = Machine("a100 sxm4", 40e9, 300e9, 200e9)
A100 = Machine("a100 sxm4", 80e9, 300e9, 200e9)
H100 = Machine("h100", 80e9, 450e9, 400e9)
H200 = Machine("h200", 141e9, 450e9, 400e9)
B200 = Machine("b200", 180e9, 900e9, 400e9)

# These have no NVLink. The link is PCIe 4 (L40S), PCIe 5 (RTX 5090), or half of PCIe 4, because a GPU copies to another
# one over the host (RTX 4090). Networks differ from place to place: 2 × 200 Gbit/s (L40S) and 25 Gbit/s are assumed.
L40S = Machine("l40s", 48e9, 32e9, 50e9)
RTX4090 = Machine("rtx 4090", 24e9, 16e9, 3.1e9)
RTX5090 = Machine("rtx 5090", 32e9, 64e9, 3.1e9)
