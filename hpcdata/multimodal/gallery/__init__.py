"""Examples to look at: what `hpcdata visualize` writes.

May use what its room uses.

    showing     an example and its preprocessor -> what of them is shown
    page        that as one HTML file
"""
