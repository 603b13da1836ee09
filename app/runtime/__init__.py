"""Floor 1: run one bundle, synchronously. Knows no queue and no HTTP."""
