"""What every process that computes with torch sets before it does, and how it computes on which device."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from bertpar.machine import usable_cpus
from bertpar.processor import has_fast_bf16, processor_features
from bertpar.spec import ComputePrecision, Precision


def set_up_torch(num_threads: int | None, num_processes: int = 1) -> None:
    """Fix what results depend on: torch computes with `num_threads` CPU threads, and with kernels that repeat.

    None: with one for each CPU that this process may use, and shares with the others of `num_processes`.
    """
    torch.set_num_threads(num_threads or max(1, usable_cpus() // num_processes))
    if torch.get_num_interop_threads() != 1:  # can be set once in a process
        torch.set_num_interop_threads(1)
    # On CPUs, "medium" has oneDNN do float32 products, which is up to twice as fast as MKL on AMD's, and rounds like
    # it; with AMX it would round to bfloat16. On GPUs it means TF32.
    is_exact = not torch.cuda.is_available() and "amx_tile" not in processor_features()
    torch.set_float32_matmul_precision("medium" if is_exact else "highest")
    # On GPUs the gradient of flash attention can be had the same each time; those of the others that torch may choose
    # for scaled_dot_product_attention cannot. Where flash does not apply there are plain products.
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Have glibc keep what is freed: each step allocates what the one before has freed.

    Handed back to the kernel meanwhile, it comes as new pages, whose faults take a twentieth of a short step. What a
    process needs at most stays the same.
    """
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4  # of mallopt(3)
    with suppress(OSError, AttributeError):  # another system's allocator
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((m_trim_threshold, 2**31 - 1), (m_top_pad, 2**26), (m_mmap_max, 0)):
            mallopt(option, value)


def compute_precision(wanted: Precision) -> ComputePrecision:
    """Return what is meant here by `trainer.precision` or `trainer.eval_precision`.

    auto is bf16 where the GPU, or else the CPU, computes with it.
    """
    if wanted != "auto":
        return wanted
    on_gpu = torch.cuda.is_available()
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else has_fast_bf16()
    return "bf16" if has_bf16 else "fp32"


def attention_implementation() -> str | None:
    """Return what transformers is to compute attention with: on GPUs what it prefers, on CPUs plain products.

    At BERT's lengths they are faster than the fused kernel, which moreover is ten times slower where float32 products
    are done by oneDNN (see above).
    """
    return None if torch.cuda.is_available() else "eager"


@contextmanager
def autocast(device: torch.device, precision: ComputePrecision) -> Iterator[None]:
    """Compute with `precision` inside: bf16 for products, float32 for what needs it."""
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        yield
