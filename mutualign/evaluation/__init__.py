"""Evaluation: what is measured of a classifier, with and without labels."""
