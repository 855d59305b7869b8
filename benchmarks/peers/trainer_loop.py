"""The task with the Hugging Face Trainer, in a loop over the configurations."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import torch
from finetune import load_splits, read_arguments
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)


def compute_metrics(prediction) -> dict[str, float]:
    return {"accuracy": float((np.argmax(prediction.predictions, axis=-1) == prediction.label_ids).mean())}


def main() -> None:
    options = read_arguments()
    torch.set_float32_matmul_precision(options.matmul)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    dataset = load_splits(options.data, tokenizer)
    for number, (lr, seed) in enumerate(itertools.product(options.lr, options.seed)):
        set_seed(seed)
        folder = Path(options.output) / str(number)
        trainer = Trainer(
            model=AutoModelForSequenceClassification.from_pretrained(
                options.model, num_labels=2, attn_implementation=options.attention
            ),
            args=TrainingArguments(
                output_dir=str(folder),
                learning_rate=lr,
                seed=seed,
                num_train_epochs=options.epochs,
                per_device_train_batch_size=options.batch_size,
                per_device_eval_batch_size=64,
                weight_decay=0.01,
                warmup_steps=0.1,
                eval_strategy="epoch",
                save_strategy="epoch",
                save_total_limit=2,
                load_best_model_at_end=True,
                metric_for_best_model="accuracy",
                bf16=options.precision == "bf16",
                use_cpu=not torch.cuda.is_available(),
                disable_tqdm=True,
            ),
            train_dataset=dataset["train"],
            eval_dataset=dataset["validation"],
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=compute_metrics,
        )
        trainer.train()
        metrics = trainer.evaluate(dataset["test"], metric_key_prefix="test")
        steps = trainer.state.global_step
        (folder / "metrics.json").write_text(json.dumps({"test/accuracy": metrics["test_accuracy"], "steps": steps}))


if __name__ == "__main__":
    main()
