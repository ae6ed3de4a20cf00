"""Media: bytes of pictures -> arrays, with one set of limits, named rules for colour, orientation and resizing.

May use: base, samples. Serves the image tokenizers and the raw path alike.

    pixels    image bytes -> RGB pixels of a given size, for every mode of picture
    sizes     sizes for other shapes than squares
"""
