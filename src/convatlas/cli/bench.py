"""`convatlas bench`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter


def bench_command(
    *,
    calibrate: Annotated[bool, Parameter(negative="")] = False,
    device: str = "cpu",
    threads: int | None = None,
) -> None:
    """Measure this machine, so that `convatlas size` can estimate times.

    Args:
        calibrate: Measure peak rates and memory bandwidth, and keep them for this user.
        device: cpu or cuda.
        threads: Threads that torch works with; its own choice where not given.
    """
    from convatlas.sizing import roofline

    if not calibrate:
        raise ValueError("nothing to measure; expected --calibrate")
    if threads is not None:
        import torch

        if threads < 1:
            raise ValueError(f"`--threads`={threads}; expected at least 1")
        torch.set_num_threads(threads)
    profile = roofline.calibrate(device)
    path = roofline.save_profile(profile)
    print(f"{profile.processor}, {profile.device}, {profile.threads} threads")
    for dtype, rates in profile.rates.items():
        best = {kind: max(rate for _, rate in curve) for kind, curve in rates.items()}
        shown = "  ".join(
            f"{kind} {best[kind] / 1e9:,.1f}" for kind in ("conv", "pointwise", "depthwise", "matmul")
        )
        print(f"{dtype:<9} GMACs/s  {shown}")
    shown = "  ".join(f"{size / 1024**2:g} MiB {rate / 1e9:,.1f}" for size, rate in profile.bandwidth)
    print(f"bandwidth GB/s     {shown}")
    print(f"start of an operation {profile.overhead * 1e6:.2f} us")
    print(f"kept in {path}; `convatlas size` now estimates times")
