"""CPU seconds that the commands without torch take to start: median of eleven.

./run python benchmarks/startup.py
"""

import os
import statistics
import subprocess
import sys

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import convatlas": ["-c", "import convatlas"],
    "convatlas --help": ["-m", "convatlas", "--help"],
    "convatlas list": ["-m", "convatlas", "list"],
    "convatlas show lenet5": ["-m", "convatlas", "show", "lenet5"],
}


def cpu_seconds(arguments: list[str]) -> float:
    before = os.times()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return (after.children_user - before.children_user) + (after.children_system - before.children_system)


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(11):
        for name, arguments in COMMANDS.items():
            times[name].append(cpu_seconds(arguments))
    for name, values in times.items():
        print(f"{name:<24} {statistics.median(values):.3f} s of CPU time")


if __name__ == "__main__":
    main()
