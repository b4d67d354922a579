//! From a message to AMQP.
