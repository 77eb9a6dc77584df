//! Starts the programs and their neighbours for tests.
