"""Evaluation of classifiers, with and without labels."""
