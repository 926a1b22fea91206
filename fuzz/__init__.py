"""Coverage-guided fuzzing of all that reads files from strangers; no part of the package."""
