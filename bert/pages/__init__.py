"""Pages that people look at in a browser: each is one file of HTML, which needs no network"""
