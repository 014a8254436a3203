"""What the doctor looks at: each check is a plain function that returns figures, ready for JSON."""
