"""The small files that say what to explore: subspace, objective and meta data.

Rates in files are fractions *removed* (0: unpruned).
"""
