"""Runs that pass: a command needs one only until what it makes is there.

through    one run from plan to target; its folder goes with success
recopying  copied records in another form, for an export that is made of that one
"""
