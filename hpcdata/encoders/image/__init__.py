"""Image tokenizers: pixels -> grids of codes.

tokenizer            the one interface, identity in the plan, building
presets              the known tokenizers in numbers, and which file holds their weights
weight_names         how layouts name weights, and how each of them finds codes
layouts              names and shapes in a weight file, read without torch when a run is planned
checkpoints          weights as their authors published them, loaded without pickled code
quantized            a network as a tokenizer: value range, precision, lookup of codes
vqgan                taming, LDM, aMUSEd, LlamaGen, Janus, Chameleon, Show-o
open_magvit2_lfq     Open-MAGVIT2: lookup-free quantization
emu3                 Emu3
exact_vq             the embedded one, with the same codes on every machine
transfer             copies to a GPU and back beside its work
codes                pictures -> codes by size; a sample compared with fp32
"""
