"""Order: what stands where in an epoch, as pure functions of (seed, epoch, position): nothing is stored or drawn.

May use: base, native. It knows positions, lengths and weights, and no tokens: any kind of example can be put in order.
The loader of tokens is its first user (hpcdata.loading); tests/order/test_alone.py has the smallest one.

    permutation    a permutation that is computed (Feistel network)
    order          the orders of a source: sequential, shuffled, by blocks
    sampling       a part of a source: first:N, random:0.5%
    mixing/        weighted sources as one stream, weights that change
    seeding        randomness of one example
    streams        the canonical order of one source, or of a mixture of sources with a name and a size
    draws          which samples stand at some positions
    bins           where samples stand in their rows
    packing/       which samples share a row, from their lengths, and from what else they cost
    steps          which samples each step of each rank consists of
    window_steps   the same where rows hold several samples
    ranks          rank and world size: the one place that asks torch.distributed
    place          where a loader stands, and how many steps there are
    state          that place as plain values, and what must be equal so that a run can go on from there
    looping        the loops over a loader, and how long they waited
    checking       whether a state is of this data and these settings, and which option differs
    account        what each source has contributed, summed up
"""
