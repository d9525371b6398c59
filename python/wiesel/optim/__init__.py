"""Optimizers, parameter groups and learning-rate schedules."""

from wiesel.optim.optimizers import SGD, Adam, AdamW, Group, Optimizer
from wiesel.optim.schedules import Constant, Cosine, OneCycle, Progress, Schedule, Step, WarmUp

__all__ = ["SGD", "Adam", "AdamW", "Constant", "Cosine", "Group", "OneCycle", "Optimizer", "Progress", "Schedule", "Step", "WarmUp"]
