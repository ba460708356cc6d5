"""What every room uses: errors with remedies, recipe values, whole files, devices and ranks."""
