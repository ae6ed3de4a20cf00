"""WebDataset tars.

wids        wids indices: the tars of a dataset
headers     the members of an archive from its headers, through damage
groups      the members of an archive gathered into samples, plain or gzipped; by which rules
oddities    what an archive has against it, and the rules that mend it
talks       samples whose JSON holds a conversation
reading     groups of members as samples
"""
