//! Images and clones: the storage drivers, id-mapped trees to a detached mount and its undo.

#![forbid(unsafe_code)]
