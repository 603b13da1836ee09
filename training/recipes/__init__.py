"""One function per run; its name is the name of the run."""
