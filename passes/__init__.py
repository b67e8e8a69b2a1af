"""Passes: rewrites and selections, one file each, registered in irprune/pipeline/registry.py."""

if __name__ != "irprune.passes":
    raise ImportError("import this package as irprune.passes")
