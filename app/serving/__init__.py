"""Floor 2: many requests, many bundles. Decides who goes when; knows no HTTP."""
