"""The numbers of an isoFLOP study, from its records; draws nothing."""
