"""Learners as nodes of a Flower federation."""
