//! The forwarder, in the order of its flow.
