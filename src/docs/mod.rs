//! Pages to read: none of this is code.
