"""Learning from rows: what is drawn for a step, what is minimised, and how a run survives being killed."""
