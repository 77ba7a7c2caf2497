"""The regression gate: did quality, FLOPs, routing, causality or speed regress? Records in, a verdict out."""
