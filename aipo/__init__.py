"""Iterative preference optimization: train, judge and compare objectives (AIPO, arXiv 2409.08845)."""
