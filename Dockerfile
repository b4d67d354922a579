# The command `longshore`, with RabbitMQ, for the service `worker` of docker-compose.yml.
FROM rust:1-slim-bookworm AS build
WORKDIR /longshore
COPY . .
# ring and SQLite are compiled from C: the image has the compiler.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/longshore/target \
    cargo build --release --locked --package longshore-workers --features amqp \
    && cp target/release/longshore /usr/local/bin/longshore

FROM debian:bookworm-slim
# The authorities that amqps trusts.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /usr/local/bin/longshore /usr/local/bin/longshore
USER nobody
# As process 1 it gets SIGTERM itself.
ENTRYPOINT ["longshore"]
