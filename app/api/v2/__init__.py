"""The Open Inference Protocol, version 2, with the extensions that docs/protocol.md lists. HTTP only."""
