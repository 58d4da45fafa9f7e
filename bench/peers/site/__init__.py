"""The Django project of the peers that answer inside a view, or behind one: the demo's, and one path more."""
