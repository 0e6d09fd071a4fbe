"""Optuna: proposals, the study's storage, plots."""

import warnings

# In a notebook without ipywidgets Optuna's import of tqdm warns of them; no bar is drawn here.
warnings.filterwarnings("ignore", message="IProgress not found")
