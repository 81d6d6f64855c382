"""What several test files share: projects, networks, slides, masks, pages, and plain versions of algorithms."""
