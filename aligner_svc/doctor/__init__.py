"""What is in force on this machine with these settings, whether it will do, and what to do where it will not."""
