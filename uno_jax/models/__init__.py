"""The unified model: two-expert decoder, vision encoder, autoencoder, UNO's metaqueries."""
