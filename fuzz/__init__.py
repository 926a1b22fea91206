"""Coverage-guided fuzzing of everything that reads files from strangers; not part of the package."""
