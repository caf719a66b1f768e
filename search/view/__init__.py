"""What people see: tables, plots and progress."""
