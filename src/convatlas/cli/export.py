"""`convatlas export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from convatlas.cli.model_option import ModelOption, read_model

Flag = Parameter(negative="")


def export_command(
    network: str | None = None,
    /,
    *,
    model: ModelOption = (),
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    input: Annotated[str | None, Parameter(name="--input")] = None,
    batch_size: int = 1,
    dynamic_batch: Annotated[bool, Flag] = False,
    int8: Annotated[bool, Flag] = False,
    calibration_data: str | None = None,
    agreement: float = 0.9,
    untrained: Annotated[bool, Flag] = False,
) -> None:
    """Write a network into a file that runs elsewhere, and check that it gives the same logits.

    Preprocessing and class names go along as metadata.

    Args:
        network: Run folder that training left behind, or network with published weights, such as
            efficientnet_lite0; with --untrained a model file, too.
        model: With --untrained, change a field of the network's config; or a model file.
        out: The file: .onnx, .pt2 (torch.export), .xml (OpenVINO), .ncnn.param, .mnn, .pte (ExecuTorch) or
            .tflite (LiteRT).
        input: Height and width in px, or C,H,W; the network's own where not given.
        batch_size: Images at a time.
        dynamic_batch: Make a file for any number of images at a time.
        int8: Quantise to 8 bits; needs --calibration-data.
        calibration_data: Images like those to come, some hundred: a folder, or a data set by its name, such
            as digits or folder:PATH.
        agreement: With --int8, the share of images whose most likely class must stay the same.
        untrained: Take the network by its name as it is initialised, without weights.
    """
    if int8 != (calibration_data is not None):
        raise ValueError("--int8 and --calibration-data belong together: give both, or neither")
    from convatlas.cli.subject import read_input
    from convatlas.engines.export import export, untrained_network
    from convatlas.engines.mixed import describe_mix
    from convatlas.predict.calibration import read_calibration
    from convatlas.predict.load import load_network

    if model and not untrained:
        raise ValueError(f"`--model {model[0]}` goes with --untrained; weights have their network with them")
    if network is None and not untrained:
        raise ValueError("name a run folder or a network with published weights, such as efficientnet_lite0")
    net = untrained_network(read_model(network, model)) if untrained else load_network(str(network))
    size = None if input is None else read_input(input)
    if isinstance(size, tuple) and len(size) != 3:
        raise ValueError(f"`--input`={input!r}; expected px, such as 224, or C,H,W, such as 3,224,224")
    images = None if calibration_data is None else read_calibration(calibration_data, net.transform)
    made = export(
        net,
        out,
        size,  # pyright: ignore[reportArgumentType]
        batch_size=batch_size,
        dynamic_batch=dynamic_batch,
        int8=int8,
        calibration=images,
        agreement=agreement,
    )
    any_batch = "any batch" if dynamic_batch else f"batch {batch_size}"
    print(f"{made.path}: {made.bytes / 1e6:,.1f} MB, {any_batch}")
    print(f"its logits differ from the network's by {made.error:.1e} of the largest", end="")
    print(f"; same top class on {made.same_top:.1%} of {made.images} images" if int8 else "")
    if made.layers:
        print(describe_mix(made.layers))
