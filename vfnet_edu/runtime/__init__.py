"""What every part uses: errors with remedies, recipe values, whole files, devices and ranks."""
