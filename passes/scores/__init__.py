"""What a channel is worth: from the weights, or from what the model does on samples."""
