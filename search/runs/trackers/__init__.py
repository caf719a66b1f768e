"""Tells the trackers of others what a search evaluates: TensorBoard, Weights & Biases, MLflow."""
