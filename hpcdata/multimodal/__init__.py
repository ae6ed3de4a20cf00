"""The raw path: pictures and conversations -> training batches, decoded when they are loaded.

    dataset -> formatting -> preprocessor (pictures/, texts/) -> loading/ (order, packing, collation)

May use: base, samples, native, embedded, config, media, order, sources, runs, shards, dataset, encoders, loading.

    values        what travels between the parts: Measure, PictureBlock, Turn
    timing        what the time of making examples goes into: read, decode, collate...
    datasets/     examples: classes of one's own, Hugging Face, every source that hpcdata reads; by name
    formatting/   fields of an example -> turns: prompts, styles, points, options
    pictures/     a picture -> crops, patches and its tokens; sizes alone -> how many
    texts/        turns -> ids, targets, weights, positions, branches; what is cut when it is too long
    loading/      measured lengths + order -> packed batches that resume exactly
"""
