"""Turns -> ids, targets, weights, positions and branches.

words      a tokenizer: text is text, and the special tokens around pictures and turns
formats    chat formats: what is written around the texts of turns
encoding   branches -> ids turn by turn, what they share, and their measure
limits     what is kept of an example that is too long, decided from lengths
layout     ids and the tokens of pictures -> the arrays of an example
"""
