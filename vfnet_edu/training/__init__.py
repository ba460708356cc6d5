"""The pieces of the training loop in `vfnet_edu/train.py`."""
