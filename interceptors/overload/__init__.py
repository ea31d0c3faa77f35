"""Not more at a time than is served well: who is let in, who waits a moment, who is told to come back."""
