"""isoFLOP fits on anyone's points: where each method is best, how that moves with compute, and how sure that is."""
