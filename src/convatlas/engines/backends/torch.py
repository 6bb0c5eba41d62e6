"""torch as an engine: the folded network run operation by operation, and compiled ahead of time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from convatlas.devices import torch_threads
from convatlas.engines.backend import Backend, BackendConfig, BatchFn, Job, Precision, read_exact_program
from convatlas.engines.fold import fold

FOLDED = "net.pt"
COMPILED = "net-{precision}.pt2"


def has_bf16(device: str) -> bool:
    """Whether the chip computes in bfloat16, rather than imitating it."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _precisions(job: Job) -> tuple[Precision, ...]:
    """What torch can use for a job, fast to slow, should time run out; full precision may be the fastest."""
    return ("bf16", "fp32") if job.precision == "bf16" and has_bf16(job.device) else ("fp32",)


class Narrow(nn.Module):
    """A network in bfloat16 between images and logits in float32."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        """Logits x (B, C, H, W)."""
        return self.net(x.to(torch.bfloat16)).float()


def _build_folded(job: Job, precision: Precision, source: Path, target: Path) -> None:
    if precision == "fp32":
        torch.save(fold(read_exact_program(source)), target / FOLDED)


def _folded_configs(job: Job, precision: Precision) -> tuple[BackendConfig, ...]:
    return tuple(
        BackendConfig(precision, layout=layout, graph=graph)
        for layout in ("NHWC", "NCHW")
        for graph in _graphs(job)
    )


def _open_folded(job: Job, folder: Path, config: BackendConfig) -> BatchFn:
    # The file is our own, in a folder that only the user writes to, next to compiled code.
    net: fx.GraphModule | Narrow = torch.load(folder / FOLDED, map_location=job.device, weights_only=False)
    if config.precision == "bf16":
        net = Narrow(net)
    order = torch.channels_last if config.layout == "NHWC" else torch.contiguous_format
    for name, value in [*net.named_parameters(), *net.named_buffers()]:
        if value.dim() == 4:
            owner, _, last = name.rpartition(".")
            kept = getattr(net.get_submodule(owner), last)
            kept.data = value.data.contiguous(memory_format=order)
    return _finish(lambda x: net(x.contiguous(memory_format=order)), job, config)


def _compiled_configs(job: Job, precision: Precision) -> tuple[BackendConfig, ...]:
    return tuple(BackendConfig(precision, graph=graph) for graph in _graphs(job))


def _graphs(job: Job) -> tuple[bool, ...]:
    return (False, True) if job.device == "cuda" else (False,)


def _build_compiled(job: Job, precision: Precision, source: Path, target: Path) -> None:
    import torch._inductor  # Takes seconds, which the other engines need not wait for.

    program = read_exact_program(source)
    options: dict[str, Any] = {"freezing": True}
    if job.device == "cuda":
        options = {"max_autotune": True, "coordinate_descent_tuning": True}
    with torch.no_grad():  # Weights are frozen only where no gradient is wanted.
        if precision == "bf16":
            program = torch.export.export(Narrow(fold(program)), (torch.zeros(job.shape, device=job.device),))
        torch._inductor.aoti_compile_and_package(
            program,
            package_path=str(target / COMPILED.format(precision=precision)),
            inductor_configs=options,
        )


def _open_compiled(job: Job, folder: Path, config: BackendConfig) -> BatchFn:
    import torch._inductor

    path = folder / COMPILED.format(precision=config.precision)
    logging.getLogger("torch._inductor").setLevel(logging.ERROR)
    net = torch._inductor.aoti_load_package(str(path), run_single_threaded=True)
    return _finish(lambda x: net(x.contiguous()), job, config)


def _finish(run: Callable[[Tensor], Tensor], job: Job, config: BackendConfig) -> BatchFn:
    """Gives a torch function the job's threads and, on a GPU, a recorded graph where that is asked for."""
    if job.device == "cuda":
        return _recorded(run, job) if config.graph else torch.inference_mode()(run)

    @torch.inference_mode()
    def with_threads(x: Tensor) -> Tensor:
        with torch_threads(job.threads):
            return run(x)

    return with_threads


def _recorded(run: Callable[[Tensor], Tensor], job: Job) -> BatchFn:
    """Records the launches of a function once; each call copies images in, replays, and copies logits out."""
    images = torch.zeros(job.shape, device=job.device)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.inference_mode(), torch.cuda.stream(side):
        for _ in range(3):
            run(images)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        logits = run(images)

    def replay(x: Tensor) -> Tensor:
        images.copy_(x)
        graph.replay()
        return logits.clone()

    return replay


FOLDED_ENGINE = Backend("torch", (), _precisions, _folded_configs, _build_folded, _open_folded)
COMPILED_ENGINE = Backend(
    "torch-compiled", (), _precisions, _compiled_configs, _build_compiled, _open_compiled, is_slow=True
)
