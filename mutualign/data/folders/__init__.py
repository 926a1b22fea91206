"""Images in folders and tables: list, read, decode, cache, and make a task of them."""
