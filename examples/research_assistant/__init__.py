"""A question is routed, perhaps clarified by a person, researched, computed and answered."""
