//! NIF boundary: terms in, terms out.
