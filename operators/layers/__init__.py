"""What operators are built from: normalization, residuals, positions, recurrences and convolutions."""
