"""The search of ``searching`` by Ray Tune with Optuna's sampler, a processor a trial, as its documentation writes it.

Usage: by_ray.py TRIALS SEED FOLDER. Prints when the first trial began and the last one ended, in seconds since 1970.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import ray
import searching
from ray import tune
from ray.tune.search.optuna import OptunaSearch


def train(config: dict[str, Any]) -> dict[str, float]:
    """One trial, and its times."""
    began_s = time.time()
    found = searching.train(**config)
    return {**found, "began_s": began_s, "ended_s": time.time()}


def main(trials: int, seed: int, folder: str) -> None:
    """Searches."""
    ray.init(num_cpus=searching.WORKERS, include_dashboard=False, log_to_driver=False)
    tuner = tune.Tuner(
        train,
        param_space={"lr": tune.loguniform(1e-4, 1e-1), "drop": tune.uniform(0, 0.5)},
        tune_config=tune.TuneConfig(
            metric="val_accuracy", mode="max", num_samples=trials, search_alg=OptunaSearch(seed=seed),
            max_concurrent_trials=searching.WORKERS,
        ),
        run_config=tune.RunConfig(storage_path=folder, verbose=0),
    )  # fmt: skip
    metrics = [result.metrics for result in tuner.fit()]
    ray.shutdown()
    print(json.dumps([min(each["began_s"] for each in metrics), max(each["ended_s"] for each in metrics)]))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
