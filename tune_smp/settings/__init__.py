"""Settings: frozen models that cannot exist in an invalid state."""
