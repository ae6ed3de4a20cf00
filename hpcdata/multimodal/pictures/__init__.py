"""A picture -> crops, patches, and the tokens that stand for it; its size alone -> how many.

Each preprocessor is a `values.PicturePreprocessor`: MolmoPictures, LlavaPictures, QwenPictures.

    tiling       the size of a picture -> the grid of tiles that it is cut into
    layout       a grid of tiles -> tokens, pooled patches and places
    crops        resized pictures -> crops, patches and masks
    resampling   resizing in floats, as torch computes it, to float32 or uint8
    rendering    pixels of a target's size: resized, padded, augmented, normalised
    augmenting   changes of pictures while training: crops, flips, colors, kernels
    statistics   means and deviations of vision models; `normalize` on the device
    molmo        MolmoPictures: global crop and overlapping tiles
    llava        LlavaPictures: a square, or a global crop and a grid of tiles
    qwen         QwenPictures: all of it in about its own resolution
"""
