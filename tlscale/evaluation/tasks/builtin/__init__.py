"""The tasks that come with the package, one file each; `tlscale tasks` lists them."""
