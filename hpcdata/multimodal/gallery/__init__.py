"""Examples to look at: what `hpcdata visualize` writes.

May use what its room uses.

    showing      an example and its preprocessor -> what of them is shown
    thumbnails   pixels -> small JPEGs
    writing      the examples of a dataset -> the page, in a folder
    page         that as one HTML file
"""
