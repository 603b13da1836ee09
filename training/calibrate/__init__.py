"""What validation rows say about how far to trust a model: temperatures, the prior, conformal sets."""
