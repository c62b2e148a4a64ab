"""VECTR0 tells every open browser tab, at once, that a new version of its web application has been deployed."""
