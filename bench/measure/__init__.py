"""What is measured on a trained model: quality, causality, routing, speed, memory, energy."""
