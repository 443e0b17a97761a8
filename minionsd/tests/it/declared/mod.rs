//! Declared state: over REST, and in guests that have a network of their own.

mod bridge;
mod crashes;
mod guests;
mod hostile;
mod policies;
mod rest;
