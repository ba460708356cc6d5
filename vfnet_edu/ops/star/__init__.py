"""The star-deformable convolution: one operator, four engines."""
