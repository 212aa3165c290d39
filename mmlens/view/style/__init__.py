"""What every figure shares: colours, titles, paint on photos, HTML, and the checks of arguments."""
