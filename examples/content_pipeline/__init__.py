"""An article is researched, written, reviewed, rewritten until it is good enough, and published."""
