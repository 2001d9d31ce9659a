"""How long a large store takes to read: `results`, and `sweep` with nothing to do.

    python benchmarks/store.py [--runs 5000] [--epochs 160]

The store is made of one run, trained once, under as many names as asked for.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import synflow_lib as sf
from synflow_lib import files
from synflow_lib.sweeps.run import Run
from synflow_lib.sweeps.store import Store


def grid(count: int, epochs: int) -> list[Run]:
    """So many runs of one small network."""
    recipe, options = sf.Recipe(epochs, 0.1), {"depth": 2, "width": 4}
    return [
        Run("digits", "fc", ("random", "snip")[i % 2], 2.0, recipe, seed=i, model_options=options)
        for i in range(count)
    ]


def main() -> None:
    """Prints the two times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=160)
    args = parser.parse_args()
    files._sync = lambda *_: None  # a store for a minute need not survive a power cut
    with tempfile.TemporaryDirectory() as folder:
        store, runs = Store(folder), grid(args.runs, args.epochs)
        sf.sweep(runs[:1], folder, progress=False)
        record = store.read(runs[0].key)
        first, *_ = record["result"]["history"]
        record["result"]["history"] = [first] * (args.epochs + 1)
        for run in runs[1:]:
            store.write(run, record)
        print(f"{args.runs:,} runs of {args.epochs} epochs, one process")
        for name, call in (
            ("results", lambda: sf.results(folder)),
            ("sweep with nothing to do", lambda: sf.sweep(runs, folder, progress=False)),
        ):
            start = time.perf_counter()
            found = call()
            print(f"{name}: {time.perf_counter() - start:.1f} s, {len(found):,} rows")


if __name__ == "__main__":
    main()
