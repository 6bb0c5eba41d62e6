"""How well the estimate of `convatlas size` meets the clock: predicted against measured seconds of a forward.

The machine is calibrated first, with the threads that torch is given. Networks take turns, and the median of
their rounds is what counts; the error is that of the estimate, relative to the measurement. With one thread
the clock is that of the thread, so that other programs on the machine count less.

    OMP_NUM_THREADS=1 python benchmarks/sizing_time.py [--device cuda --batch 64] [--rounds 7]
"""

import argparse
import math
import statistics

import torch
from torch import nn

import convatlas
from convatlas.sizing import size
from convatlas.sizing.roofline import calibrate, clock, estimate

NETWORKS = (
    "alexnet_owt",
    "vgg11",
    "googlenet_tv",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "densenet121",
    "mobilenet_v1_100",
    "mobilenet_v2_100",
    "efficientnet_b0",
)


def forward_seconds(net: nn.Module, x: torch.Tensor) -> float:
    now = clock(x.device.type)
    begin = now()
    net(x)
    if x.is_cuda:
        torch.cuda.synchronize()
    return now() - begin


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    args = parser.parse_args()
    profile = calibrate(args.device)
    print(f"{profile.processor}, {profile.threads} threads, torch {torch.__version__}, batch {args.batch}")
    nets: dict[str, nn.Module] = {}
    predicted: dict[str, float] = {}
    for name in args.networks:
        if not convatlas.is_model(name):
            print(f"{name}: not in this build, left out")
            continue
        with torch.device(args.device):
            nets[name] = convatlas.create_model(name).eval()
        predicted[name] = estimate(size(nets[name], 224, batch_size=args.batch), profile)
    x = torch.randn(args.batch, 3, 224, 224, device=args.device)
    times: dict[str, list[float]] = {name: [] for name in nets}
    with torch.inference_mode():
        for i in range(args.rounds + 1):
            for name, net in nets.items():
                taken = forward_seconds(net, x)
                if i:
                    times[name].append(taken)
    print(f"{'network':<20} {'predicted ms':>13} {'measured ms':>13} {'error':>8}")
    logs: list[float] = []
    for name, values in times.items():
        measured = statistics.median(values)
        logs.append(abs(math.log(predicted[name] / measured)))
        error = predicted[name] / measured - 1
        print(f"{name:<20} {predicted[name] * 1e3:>13.2f} {measured * 1e3:>13.2f} {error:>+8.0%}")
    print(f"typical factor off (geometric mean): {math.exp(statistics.mean(logs)):.2f}")


if __name__ == "__main__":
    main()
