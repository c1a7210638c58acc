"""The parts of `aipo.train`: one job per module."""
