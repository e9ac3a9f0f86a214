"""Who is measured: one small module each, and the list of them."""
