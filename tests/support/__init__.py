"""What several test files share: projects, networks, slides, masks, pages, and slow but plain versions of algorithms."""
