"""The study as one page: `goh_study` runs it, `goh_sections` words it, `goh_page` writes it."""
