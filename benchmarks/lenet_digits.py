"""The main job over five seeds: test accuracy, and seconds of the whole command, start-up included.

./run python benchmarks/lenet_digits.py [SEED ...]
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    seeds = [int(word) for word in sys.argv[1:]] or [0, 1, 2, 3, 4]
    accuracies, seconds = [], []
    with tempfile.TemporaryDirectory() as out:
        for seed in seeds:
            command = [
                sys.executable,
                "-m",
                "convatlas",
                "train",
                "lenet5",
                "--seed",
                str(seed),
                "--out",
                out,
            ]
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds.append(time.perf_counter() - started)
            newest = max(Path(out).glob("*/run.json"), key=lambda path: path.stat().st_mtime)
            record = json.loads(newest.read_text())
            accuracies.append(record["result"]["test_accuracy"])
            print(f"seed {seed}: test accuracy {accuracies[-1]:.2%}, {seconds[-1]:.1f} s", flush=True)
    print(f"mean accuracy {statistics.mean(accuracies):.2%}, median {statistics.median(seconds):.1f} s")
    print(f"machine: {record['machine']}, versions: {record['versions']}")


if __name__ == "__main__":
    main()
