"""Training of the embedded image tokenizer (`jobs/train_image_tokenizer.py`).

recipe    its settings
crops     pictures in memory, crops of a step as a pure function of its number
train     steps that resume exactly, export of the weights
"""
