"""From images with questions on disk to batches of pixels and tokens."""
