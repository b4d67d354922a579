//! From AMQP to a message.
