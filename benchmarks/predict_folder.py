"""What `predict` keeps of the slower of decoding and the network, on a folder of JPEGs; and frames a second.

./run python benchmarks/predict_folder.py [--network efficientnet_lite0] [--engine eager] [--px 500x375]
./run python benchmarks/predict_folder.py --film --network resnet50_v1_5 [--engine auto]

The images are parts of photographs that come with scikit-learn and scikit-image, no two alike, saved as
JPEG of quality 90. The rates are taken in turns, each over all images: reading without a network, the
network on batches that lie in memory, and `predict`. Random weights where none are published.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage.data
import sklearn.datasets
import torch
from PIL import Image

import convatlas
from convatlas.data.transforms import card_transform
from convatlas.machine import processor
from convatlas.predict.inputs import find_items
from convatlas.predict.outputs import Prediction
from convatlas.predict.predictor import Predictor
from convatlas.weights.errors import WeightsError


def photographs() -> list[Image.Image]:
    found = [*sklearn.datasets.load_sample_images().images]
    found += [skimage.data.astronaut(), skimage.data.chelsea(), skimage.data.coffee(), skimage.data.rocket()]
    return [Image.fromarray(pixels) for pixels in found]


def make_images(folder: Path, count: int, width: int, height: int) -> int:
    """Writes the images; returns their bytes on average."""
    rng = np.random.default_rng(0)
    sources = photographs()
    total = 0
    for number in range(count):
        source = sources[number % len(sources)]
        share = rng.uniform(0.6, 1.0)
        span = min(source.width / width, source.height / height) * share
        across, down = width * span, height * span
        left, top = rng.uniform(0, source.width - across), rng.uniform(0, source.height - down)
        box = (left, top, left + across, top + down)
        path = folder / f"{number:05d}.jpg"
        source.resize((width, height), Image.Resampling.BICUBIC, box).save(path, quality=90)
        total += path.stat().st_size
    return total // count


def make_film(path: Path, seconds: int, rate: int, width: int, height: int) -> None:
    import av

    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        wide = photographs()[0].resize((2 * width, 2 * height))
        for number in range(seconds * rate):
            shift = number * width // (seconds * rate)
            view = wide.crop((shift, shift // 2, shift + width, shift // 2 + height))
            film.mux(stream.encode(av.VideoFrame.from_image(view)))
        film.mux(stream.encode(None))


def open_network(name: str, engine: str, batch: int, workers: int | None) -> Predictor:
    options = {"engine": engine, "batch_size": batch, "workers": workers}
    try:
        return convatlas.load(name, **options)
    except (WeightsError, ValueError):
        net = convatlas.create_model(name)
        return Predictor(net, transform=card_transform(convatlas.find_card(name)), **options)


def per_second(count: int, work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def measure_folder(predictor: Predictor, folder: Path, count: int, rounds: int) -> None:
    x = torch.randn(predictor.batch_size, *predictor.transform.input_size)
    x = x.contiguous(memory_format=torch.channels_last)
    predictor(x)
    batches = -(-count // predictor.batch_size)

    def read() -> None:
        for _ in predictor._read(find_items(folder)):
            pass

    def run() -> None:
        for _ in range(batches):
            predictor(x)

    def prediction() -> None:
        assert all(isinstance(results, Prediction) for results in predictor.stream(folder))

    kinds = {"reading": read, "network": run, "predict": prediction}
    counts = {"reading": count, "network": batches * predictor.batch_size, "predict": count}
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, work in kinds.items():
            rates[kind].append(per_second(counts[kind], work))
    middle = {kind: statistics.median(values) for kind, values in rates.items()}
    for kind, values in rates.items():
        print(f"{kind:<8} {middle[kind]:8.1f} images/s   of {', '.join(f'{value:.1f}' for value in values)}")
    kept = middle["predict"] / min(middle["reading"], middle["network"])
    alternating = 1.0 / (1.0 / middle["reading"] + 1.0 / middle["network"])
    print(f"predict keeps {kept:.1%} of the slower; one after the other would be {alternating:.1f} images/s")


def measure_film(predictor: Predictor, path: Path, fps: float, seconds: int, rounds: int) -> None:
    predictor(torch.randn(predictor.batch_size, *predictor.transform.input_size))
    frames = len(predictor.predict(path, fps=fps))
    rates = [per_second(frames, lambda: predictor.predict(path, fps=fps)) for _ in range(rounds)]
    print(f"{frames} frames of a film of {seconds} s: {statistics.median(rates):.1f} frames/s, of {rates}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", default="efficientnet_lite0")
    parser.add_argument("--engine", default="eager")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--px", default="500x375")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--film", action="store_true")
    parser.add_argument("--fps", type=float, default=20.0)
    args = parser.parse_args()
    width, height = map(int, args.px.split("x"))
    predictor = open_network(args.network, args.engine, args.batch, args.workers)
    print(f"{args.network}, engine {args.engine}, batch {args.batch}, {processor()}, "
          f"{torch.get_num_threads()} threads, {predictor.workers} readers")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        if args.film:
            make_film(Path(name) / "film.mp4", 20, 30, 1280, 720)
            measure_film(predictor, Path(name) / "film.mp4", args.fps, 20, args.rounds)
        else:
            size = make_images(Path(name), args.count, width, height)
            print(f"{args.count} JPEGs of {width}x{height} px, {size:,} bytes on average")
            measure_folder(predictor, Path(name), args.count, args.rounds)
    for report in predictor.reports:
        print(report)


if __name__ == "__main__":
    main()
