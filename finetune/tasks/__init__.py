"""The kinds of tasks: what their files hold, what the model learns, what is measured, what a user is told."""
