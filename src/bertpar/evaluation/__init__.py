"""Metrics, evaluation on the test split, prediction. Nothing is imported here: `metrics` stays light."""
