"""Many hostile inputs, from seeds, and the claims that hold for all of them."""
