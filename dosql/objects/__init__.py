"""What one awake object is made of: its turns, its output gate, its transactions."""
