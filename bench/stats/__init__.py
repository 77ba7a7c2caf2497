"""Pure numbers: intervals, paired tests, fits and change points. Imports no other part of bench but errors."""
