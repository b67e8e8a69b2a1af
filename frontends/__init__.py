"""Frontends: what turns files and objects of other tools into models."""

if __name__ != "irprune.frontends":
    raise ImportError("import this package as irprune.frontends")
