//! The thread that owns signals and the deadline, and the board of atomics that it reads.
