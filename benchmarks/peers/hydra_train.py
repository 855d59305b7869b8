"""The task under Hydra: `python hydra_train.py -m lr=1e-4,2e-4`, with its basic launcher or hydra-joblib-launcher."""

from __future__ import annotations

import json
from pathlib import Path

import hydra
import mlflow
import torch
from finetune import finetune
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig


@hydra.main(version_base=None, config_path=".", config_name="hydra_train")
def main(cfg: DictConfig) -> float:
    torch.set_float32_matmul_precision(cfg.matmul)
    folder = HydraConfig.get().runtime.output_dir
    mlflow.set_tracking_uri(cfg.mlflow)
    mlflow.set_experiment("hydra")
    with mlflow.start_run():
        mlflow.log_params({"lr": cfg.lr, "seed": cfg.seed})
        metrics = finetune(
            model=cfg.model,
            data=cfg.data,
            output=folder,
            lr=cfg.lr,
            seed=cfg.seed,
            epochs=cfg.epochs,
            batch_size=cfg.batch_size,
            precision=cfg.precision,
            attention=cfg.attention,
            log=lambda metrics, step: mlflow.log_metrics(metrics, step=step),
        )
    (Path(folder) / "metrics.json").write_text(json.dumps(metrics))
    return metrics["val/accuracy"]


if __name__ == "__main__":
    main()
