"""Lengths + order -> batches of raw examples that resume exactly."""
