"""Encoders: text and pictures -> ids and codes.

May use: base, samples, embedded, config, media, shards, runs. `README.md`: which weights fit, what was compared.

    text/        text tokenizers
    image/       image tokenizers: networks, weights, lookup of codes
    training/    how the embedded image tokenizer is trained
    building     the tokenizers of a plan, built
    batching     the batch size that suits the GPU
    examples     Samples -> Examples: decoding ahead, one batch at a time
"""
