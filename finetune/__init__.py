"""From a pretrained encoder to a model of a task: training, metrics, predictions."""
