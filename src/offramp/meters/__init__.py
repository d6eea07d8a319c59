"""What training draws from the machine: memory, power, energy; and what it may take. No torch."""
