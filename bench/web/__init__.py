"""What all pages share: their frame, style and scripts, figures, tables, and the site that links them."""
