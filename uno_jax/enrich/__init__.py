"""Adds to prepared datasets what models compute of their records."""
