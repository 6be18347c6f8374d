# The two images, one file:
#
#   docker build --target worker   -t sluice-worker .
#   docker build --target operator -t sluice-operator .
#
# BIN=source    compiles here (needs the network for crates and a compiler image)
# BIN=prebuilt  takes dist/<target>/ of the build context, as `e2e/images.sh` collects it: the binary and, for a
#               RUNTIME_IMAGE without a C library (scratch), the shared libraries it names
ARG BIN=source
ARG BUILD_IMAGE=docker.io/library/rust:1.95-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS source
WORKDIR /src
COPY . .
# librdkafka is compiled with its own OpenSSL, which wants make and perl; both are in the image.
RUN cargo build --release --locked -p sluice-worker -p sluice-operator \
 && for name in worker operator; do install -D target/release/sluice-$name /dist/$name/usr/bin/sluice-$name; done

FROM scratch AS prebuilt
COPY dist/ /dist/

FROM ${BIN} AS files

FROM ${RUNTIME_IMAGE} AS operator
COPY --from=files /dist/operator/ /
USER 65532:65532
ENTRYPOINT ["/usr/bin/sluice-operator"]

FROM ${RUNTIME_IMAGE} AS worker
COPY --from=files /dist/worker/ /
USER 65532:65532
ENTRYPOINT ["/usr/bin/sluice-worker"]
