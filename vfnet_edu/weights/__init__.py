"""Weights in and out of files, ours and other people's."""
