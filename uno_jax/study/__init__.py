"""The study: whether supervision by the understanding expert helps, against every obvious alternative."""
