"""What a measurement is made of, one concept a module."""
