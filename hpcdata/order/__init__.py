"""Order: what stands where in an epoch, as pure functions of (seed, epoch, position): nothing is stored or drawn.

May use: base, native. It knows positions, lengths and weights, and no tokens: any kind of example can be put in order.

    order      a permutation that is computed (Feistel network), also by blocks
    mixture    weighted sources, interleaved in closed form
    sampling   a part of a source: first:N, random:0.5%
    draws      which samples stand at some positions
    seeding    randomness of one example
    packing    which samples share a row, from their lengths
    bins       where samples stand in their rows
    ranks      rank and world size: the one place that asks torch.distributed
    state      what must be equal so that a run can go on from a state
"""
