"""Mixing: several weighted sources as one stream.

interleave      which source stands at a position, in closed form; what weights are relative to
schedule        weights that change, and where an epoch ends
weight_ledger   changes of weights that are too many for a state
"""
