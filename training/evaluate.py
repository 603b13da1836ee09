"""What a model is worth on test rows: for every subset, spoiled or not, and where its limits are."""
