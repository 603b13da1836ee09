"""What answers are worth: scores with intervals, on arrays. Nothing here knows torch or a model."""
