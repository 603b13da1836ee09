"""From a checkpoint to a published bundle: graphs, proof that they answer as the model does, card, golden cases."""
