"""Training of the embedded image tokenizer (`jobs/train_image_tokenizer.py`).

recipe    its settings
crops     pictures in memory, crops of a step as a pure function of its number
start     the warm start: a patch quantizer without networks
trained   the network while it is trained, and the weights that are shipped of it
train     steps that resume exactly
"""
