"""What a coordinator does over one turn: invite, open a round, ask, hear, aggregate. No framework is named here."""
