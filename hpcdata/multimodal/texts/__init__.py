"""Turns -> ids, targets, weights, positions and branches."""
