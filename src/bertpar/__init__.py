"""bertpar: Hydra sweeps of BERT fine-tuning as durable Temporal workflows."""
