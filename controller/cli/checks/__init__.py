"""What `pileus check` looks at: a file for each part of a site."""
