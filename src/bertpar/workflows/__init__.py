"""Temporal workflows: deterministic, free of ML libraries, all on the evaluation queue."""

from bertpar.workflows.coordinator import CoordinatorWorkflow
from bertpar.workflows.evaluation import EvaluationWorkflow
from bertpar.workflows.inference import InferenceWorkflow
from bertpar.workflows.training import TrainingWorkflow

WORKFLOWS: list[type] = [CoordinatorWorkflow, TrainingWorkflow, EvaluationWorkflow, InferenceWorkflow]

__all__ = ["WORKFLOWS", "CoordinatorWorkflow", "EvaluationWorkflow", "InferenceWorkflow", "TrainingWorkflow"]
