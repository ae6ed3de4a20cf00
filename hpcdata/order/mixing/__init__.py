"""Mixing: several weighted sources as one stream.

May use what its room uses.

    interleave      which source stands at a position, in closed form; what weights are relative to
    schedule        weights that change, and where an epoch ends
    sized           sources with a name, a size and a weight, as values
    shuffling       the shuffled rows of many sources in one go
    weight_ledger   changes of weights that are too many for a state
"""
