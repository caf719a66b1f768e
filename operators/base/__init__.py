"""What every package needs: errors, values, files, YAML and thread counts."""
