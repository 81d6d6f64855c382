"""What several tests share: small networks, slides, pages, pairs of masks."""
