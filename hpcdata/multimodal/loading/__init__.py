"""Lengths + order -> batches of raw examples that resume exactly.

mixture       datasets with weights: IterableDatasetMixture, rates of groups
lengths       what each example takes of the budgets of a row, without decoding
steps         which examples each row of each step consists of
fetching      examples made ahead by threads, in bounded memory
collation     preprocessed examples -> one batch of tensors: MMCollator
masks         which token may attend to which
loader        MultimodalLoader
accounting    what each source has contributed, and what was rejected
"""
