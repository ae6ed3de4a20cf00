"""The card of a dataset: what is in it, where it came from, what was left out, and how to load it.

May use what `report` may. Every text that a card shows came from data or from other people, and is escaped.

    model       a card as values: sections of words, tables and code
    gathering   a manifest -> a card
    figures     sizes of samples and pictures, from the columns of its parts
    reasons     the reasons of rejects in words
    head        what hubs read before the text: licence, size, tags
    markdown    a card as Markdown
    page        a card as one HTML file
"""
