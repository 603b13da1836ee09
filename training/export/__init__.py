"""From a checkpoint to a published bundle: graphs, proof that they answer alike, card, golden cases."""
