"""Optuna: proposals, the study's storage, plots."""
