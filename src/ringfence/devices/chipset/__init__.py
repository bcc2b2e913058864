"""What sits on the mainboard: power, reset, configuration."""
