"""The regression gate: did quality, FLOPs, routing, causality or speed get worse? Records in, a verdict out."""
