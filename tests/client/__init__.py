"""The client against real servers: ours, and one that does what it is told."""
