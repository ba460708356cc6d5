"""Networks: backbone, neck and head, and the detector that joins them."""
