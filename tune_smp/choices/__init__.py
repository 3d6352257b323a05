"""What can be chosen, as data: frozen rows whose fields are capabilities."""
