"""A picture -> crops, patches, and the tokens that stand for it; its size alone -> how many.

tiling       the size of a picture -> the grid of tiles that it is cut into
layout       a grid of tiles -> tokens, pooled patches and places
crops        resized pictures -> crops, patches and masks
resampling   resizing in floats, as torch computes it, to float32 or uint8
fast         resizing in uint8
statistics   means and deviations of vision models; `normalize` on the device
molmo        MolmoPictures: all of this
"""
