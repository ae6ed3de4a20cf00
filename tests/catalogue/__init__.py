"""Fetching and checking named data sets, against servers on this machine."""
