"""The depth-width law: measured, fitted, picked from and plotted."""
