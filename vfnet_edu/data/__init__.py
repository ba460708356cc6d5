"""From annotations and a folder of photographs to batches: index, augmentation, loading, a report on what is wrong."""
