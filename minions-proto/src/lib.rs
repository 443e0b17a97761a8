//! The wire between the host and the agent in a guest.
