"""The task under Ray Tune: a grid of configurations, as many trials at once as there are cores."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from finetune import finetune, read_arguments
from ray import tune


def trainable(config: dict) -> None:
    torch.set_float32_matmul_precision(config.pop("matmul"))
    metrics = finetune(output=tune.get_context().get_trial_dir(), **config)
    tune.report(metrics)


def main() -> None:
    arguments = vars(read_arguments())
    output = arguments.pop("output")
    grid = {name: tune.grid_search(arguments.pop(name)) for name in ("lr", "seed")}
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={**arguments, **grid},
        tune_config=tune.TuneConfig(metric="val/accuracy", mode="max"),
        run_config=tune.RunConfig(storage_path=output, name="sweep", verbose=1),
    )
    results = tuner.fit()
    for number, result in enumerate(results):
        if result.error:
            raise result.error
        (Path(output) / f"{number}.metrics.json").write_text(json.dumps(result.metrics, default=str))


if __name__ == "__main__":
    main()
