"""Text tokenizers: text -> ids.

tokenizer              the file, its identity, and the engine for it
engines                a tokenizer.json or a SentencePiece model: text -> ids
chat                   conversation templates: the ids around turns
panics                 texts at which a tokenizer gives up
special_ids            the ids of `<image>` and of padding
fast                   the fast engine, where it gives the same ids
probes                 what the two engines are compared by
characters             tables of Unicode: which characters are the same for every engine
splitting              long texts in pieces, with the same ids
sentencepiece_rules    what a SentencePiece model says of replacing characters and of finding pieces
"""
