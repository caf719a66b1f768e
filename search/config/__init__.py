"""The settings of a run: frozen values that import no machinery."""
