"""Operators: what a network computes that PyTorch has no single function for."""
