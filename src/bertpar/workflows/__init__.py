"""Temporal workflows: deterministic, free of ML libraries, all on the evaluation queue."""

from bertpar.workflows.coordinator import CoordinatorWorkflow
from bertpar.workflows.evaluation import EvaluationWorkflow
from bertpar.workflows.inference import InferenceWorkflow
from bertpar.workflows.plan import PlanWorkflow
from bertpar.workflows.training import TrainingWorkflow

WORKFLOWS: list[type] = [CoordinatorWorkflow, TrainingWorkflow, EvaluationWorkflow, InferenceWorkflow, PlanWorkflow]

__all__ = [
    "WORKFLOWS",
    "CoordinatorWorkflow",
    "EvaluationWorkflow",
    "InferenceWorkflow",
    "PlanWorkflow",
    "TrainingWorkflow",
]
