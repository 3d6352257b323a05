"""Choices as data: frozen rows whose fields are capabilities."""
