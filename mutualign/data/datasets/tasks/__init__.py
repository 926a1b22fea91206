"""The tasks of the package, one file per dataset, whose loaders import what they need: listing them needs no torch."""
