"""Sweeps: settings of a recipe are searched by a label-free score, with Optuna."""
