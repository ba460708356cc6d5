"""Feature maps to boxes with scores, and the losses that teach them."""
