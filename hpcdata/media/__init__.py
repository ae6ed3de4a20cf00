"""Media: bytes of pictures -> arrays, with one set of limits, named rules for colour, orientation and resizing.

May use: base, samples, native. Serves the image tokenizers (`pixels.load`) and the raw path
(`opening.open_image`) alike.

    kinds         which files are pictures, by their endings and first bytes
    rules         the rules `white`, `molmo`, `liquid`: what each does with alpha, orientation and sizes
    formats       the formats that are opened, the limit of pixels, and which reject an error of Pillow becomes
    drafts        large JPEGs decoded at a part of their size
    jpeg          whole JPEGs decoded by simplejpeg, where it makes the same bytes as Pillow
    orientation   the rule for EXIF orientation: which way a picture is turned
    colors        every mode of picture -> RGB: alpha, palettes, 16 bits, CMYK
    profiles      ICC profiles and the gamma of a PNG -> sRGB, and which were not applied
    turns         large pictures are decoded in turns, within a budget of memory
    opening       a picture at its full size, upright and in RGB
    headers       the size of a picture from its header, nothing decoded
    resizing      kernels, the rounding of sides, the center crop
    sizes         sizes for other shapes than squares
    kept          pictures that stay files: whether they can be decoded; others as PNG
    pixels        image bytes -> RGB pixels of a given size: all of the above in their order
"""
