"""Scripts that make the tables, pictures and notebook outputs of the docs."""
