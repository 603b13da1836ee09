"""One module for each recipe, by name: a function that says everything about a run."""
