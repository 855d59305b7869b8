"""The task as a plain PyTorch script has it: what Hydra's launchers and Ray Tune run once per configuration."""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Callable
from pathlib import Path

import torch
from datasets import load_dataset
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    get_linear_schedule_with_warmup,
    set_seed,
)


def read_arguments() -> argparse.Namespace:
    """Return what a script that goes through a whole sweep is told: --lr and --seed with all their values."""
    parser = argparse.ArgumentParser()
    for name in ("model", "data", "output"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--lr", type=float, nargs="+", required=True)
    parser.add_argument("--seed", type=int, nargs="+", required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--matmul", default="highest")
    parser.add_argument("--attention", default="sdpa")
    return parser.parse_args()


def load_splits(data: str, tokenizer):
    """Return the tokenised splits of `data`, a folder with train.jsonl, validation.jsonl and test.jsonl."""
    files = {split: str(Path(data) / f"{split}.jsonl") for split in ("train", "validation", "test")}
    dataset = load_dataset("json", data_files=files, cache_dir=str(Path(data) / "cache"))
    return dataset.map(
        lambda batch: tokenizer(batch["text"], truncation=True, max_length=128), batched=True, remove_columns=["text"]
    )


def finetune(
    *,
    model: str,
    data: str,
    output: str,
    lr: float,
    seed: int,
    epochs: int,
    batch_size: int = 32,
    eval_batch_size: int = 64,
    precision: str = "fp32",
    attention: str = "sdpa",
    log_every_n_steps: int = 5,
    log: Callable[[dict[str, float], int], None] = lambda metrics, step: None,
) -> dict[str, float]:
    """Fine-tune, validate after each epoch, keep the best checkpoint, and score it on the test split."""
    set_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = AutoTokenizer.from_pretrained(model)
    dataset = load_splits(data, tokenizer)
    classifier = AutoModelForSequenceClassification.from_pretrained(
        model, num_labels=2, attn_implementation=attention
    ).to(device)
    collator = DataCollatorWithPadding(tokenizer)
    train_loader = DataLoader(dataset["train"], batch_size, shuffle=True, collate_fn=collator)
    validation_loader = DataLoader(dataset["validation"], eval_batch_size, collate_fn=collator)
    test_loader = DataLoader(dataset["test"], eval_batch_size, collate_fn=collator)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=lr, weight_decay=0.01)
    total_steps = epochs * len(train_loader)
    schedule = get_linear_schedule_with_warmup(optimizer, total_steps // 10, total_steps)

    def forward(batch):
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            return classifier(**batch.to(device))

    @torch.no_grad()
    def accuracy(loader):
        classifier.eval()
        correct = 0
        for batch in loader:
            correct += (forward(batch).logits.argmax(-1) == batch["labels"].to(device)).sum().item()
        return correct / len(loader.dataset)

    step, best, best_file = 0, -1.0, Path(output) / "best.pt"
    best_file.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(epochs):
        classifier.train()
        for batch in train_loader:
            loss = forward(batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            if step % log_every_n_steps == 0:
                log({"train/loss": loss.item()}, step)
        validated = accuracy(validation_loader)
        log({"val/accuracy": validated}, step)
        state = {"model": classifier.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        torch.save(state, best_file.with_name("last.pt"))
        if validated > best:
            best = validated
            torch.save(classifier.state_dict(), best_file)
    classifier.load_state_dict(torch.load(best_file))
    tested = accuracy(test_loader)
    log({"test/accuracy": tested}, step)
    return {"val/accuracy": best, "test/accuracy": tested, "steps": step}
