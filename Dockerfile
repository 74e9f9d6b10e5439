# The Haystack Platform as an image: one binary, the role is the argument.
#
#   docker build -t haystack:0.1.0 .
#   docker run haystack:0.1.0 ingest
#
# docker-compose.yml runs all of it. No engine has run this file yet: it is linted (hadolint), and
# chaos/tests/real/containers.rs holds what it names against the repository and the binary.

FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked -p haystack-cli \
    && install -D target/release/haystack /out/haystack \
    && strip --strip-debug /out/haystack

# The same release of Debian as above: the same C library.
FROM debian:12.15-slim
# Who vouches for issuers of tokens (OpenID Connect).
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/haystack /usr/local/bin/
# What docker-compose.yml begins with.
COPY --chmod=0444 nats/conf/nats-server.conf deploy/emqx/emqx.conf deploy/emqx/acl.conf \
    deploy/containers/roles.sql deploy/containers/secrets.sh /usr/share/haystack/
# A number that no user of the host is likely to have. Its data folder is the default one, below.
RUN groupadd --gid 10001 haystack \
    && useradd --uid 10001 --gid 10001 --no-log-init --home-dir /var/lib/haystack haystack \
    && install -d -o haystack -g haystack -m 0700 /var/lib/haystack /var/lib/haystack/.haystack \
        /var/lib/haystack/.haystack/secrets /var/lib/haystack/.haystack/pki
WORKDIR /var/lib/haystack
USER 10001:10001
EXPOSE 8000 8001 8002 8003
ENTRYPOINT ["/usr/local/bin/haystack"]
CMD ["--help"]
# Whichever role runs here.
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["/usr/local/bin/haystack", "healthy"]
