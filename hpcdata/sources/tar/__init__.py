"""WebDataset tars.

reading     groups of members as samples; what a scan finds against an archive
groups      the members of an archive gathered into samples, plain or gzipped
headers     the members of an archive from its headers, through damage
"""
