"""Floor 0: what a bundle is and what bytes mean. Shared by serving and training, so they cannot drift."""
