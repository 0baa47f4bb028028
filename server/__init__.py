"""One door for people and programs: the command line now, the API and the page with it."""
