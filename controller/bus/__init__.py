"""The doorbell: kombu over RabbitMQ, or over the process's own memory."""
