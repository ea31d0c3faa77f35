"""The model runs in a child process for each device; the parent has the queue, the words and the tokenizer, and no torch."""
