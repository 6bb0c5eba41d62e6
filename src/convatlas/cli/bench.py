"""`convatlas bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from convatlas.cli.model_option import ModelOption, read_changes
from convatlas.cli.table_format import TABLE, TableFormat, render
from convatlas.models.model_file import is_model_file

Flag = Parameter(negative="")


def bench_command(
    *networks: str,
    model: ModelOption = (),
    batch_size: str = "1",
    engines: str = "eager",
    precision: str = "fp32",
    input: Annotated[str | None, Parameter(name="--input")] = None,
    seconds: float = 1.0,
    threads: int | None = None,
    device: str = "cpu",
    output: TableFormat = TABLE,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    image: Path | None = None,
    theme: str = "light",
    profile_machine: Annotated[bool, Flag] = False,
) -> None:
    """Measure how fast networks are on this machine; or the machine itself, for estimates of time.

    Args:
        networks: Names, model files, or patterns such as "resnet*".
        model: Change a field of the networks' config, such as width_mult=0.5; or a model file.
        batch_size: Images at a time; several with commas, such as 1,16.
        engines: all, or some of eager, torch, onnxruntime, openvino, ncnn, mnn, executorch, native and
            torch-compiled, with commas.
        precision: fp32, or bf16 to allow that too.
        input: Height and width in px, or C,H,W; each network's published size where not given.
        seconds: To spend on timing each engine.
        threads: That work on a batch; torch's own choice where not given.
        device: cpu or cuda.
        output: Format of the table; csv and json have exact numbers in s and bytes.
        out: Write to this file.
        image: Draw accuracy against latency and MACs into this file, which ends in .svg, .png or .pdf.
        theme: Of that file: light, dark or print.
        profile_machine: Measure peak rates and memory bandwidth, and keep them for `convatlas size`.
    """
    if profile_machine and networks:
        raise ValueError("--profile-machine measures the machine; expected it without networks")
    if threads is not None and threads < 1:
        raise ValueError(f"`--threads`={threads}; expected at least 1")
    if profile_machine:
        _calibrate(device, threads)
        return
    files = [item for item in model if is_model_file(item) and "=" not in item]
    networks = (*networks, *files)
    if not networks:
        raise ValueError(
            "nothing to measure; expected --profile-machine, or networks such as resnet50 or 'resnet*'"
        )
    form = output.chosen()
    for path in (out, image):
        if path is not None and not path.absolute().parent.is_dir():
            # Before minutes of measuring.
            raise ValueError(f"{path}: there is no folder {path.parent}")
    if image is not None:
        from convatlas.drawing.figure import suffix_of
        from convatlas.plots.style import palette

        suffix_of(image)
        palette(theme)
    from convatlas.benchmark.bench import bench
    from convatlas.benchmark.report import bench_grid, bench_records
    from convatlas.cli.subject import read_input
    from convatlas.files import write_atomic

    measured = bench(
        networks,
        batch_sizes=_read_batches(batch_size),
        engines="all" if engines == "all" else [name.strip() for name in engines.split(",")],
        precision=precision,  # pyright: ignore[reportArgumentType]
        input_size=None if input is None else read_input(input),  # pyright: ignore[reportArgumentType]
        threads=threads,
        device=device,
        seconds=seconds,
        model=read_changes([item for item in model if item not in files]),
    )
    records = bench_records(measured)
    text = render(form, bench_grid(measured), records=records, title="bench", to_file=out is not None)
    if out is None:
        print(text, end="")
    else:
        write_atomic(out, text)
    if image is not None:
        from convatlas.benchmark.chart import draw_bench

        draw_bench(measured, theme=theme).save(image)


def _read_batches(text: str) -> list[int]:
    words = text.replace(" ", "").split(",")
    if not all(word.isascii() and word.isdecimal() and int(word) for word in words):
        raise ValueError(f"`--batch-size`={text!r}; expected numbers of images, such as 1 or 1,16")
    return [int(word) for word in words]


def _calibrate(device: str, threads: int | None) -> None:
    from convatlas.sizing import roofline

    if threads is not None:
        import torch

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
