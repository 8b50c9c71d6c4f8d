//! Examples of nurl, one runnable file each.
