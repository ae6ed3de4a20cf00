"""Datasets of ours as inputs of a run.

rows    the rows of a dataset of tokens, by their positions
"""
