"""What fills the ports: one module for each outside thing."""
